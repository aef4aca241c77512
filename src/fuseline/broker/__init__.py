"""What hands steps to workers: one interface, in this process, over RabbitMQ, over HTTP."""

from fuseline.broker.amqp import AmqpBroker
from fuseline.broker.base import Broker
from fuseline.broker.http import HttpBroker
from fuseline.broker.memory import MemoryBroker
from fuseline.model.messages import StepAssignment, StepReport

__all__ = ["AmqpBroker", "Broker", "HttpBroker", "MemoryBroker", "StepAssignment", "StepReport"]
