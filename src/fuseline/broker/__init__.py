"""What hands steps to workers: one interface, in this process, over RabbitMQ, over HTTP."""

from typing import TYPE_CHECKING

from fuseline.broker.base import Broker
from fuseline.lazily import imported_on_demand
from fuseline.model.messages import StepAssignment, StepReport

if TYPE_CHECKING:
    from fuseline.broker.amqp import AmqpBroker
    from fuseline.broker.http import HttpBroker
    from fuseline.broker.memory import MemoryBroker

__all__ = ["AmqpBroker", "Broker", "HttpBroker", "MemoryBroker", "StepAssignment", "StepReport"]

# Each is imported by whoever uses it: a worker that has RabbitMQ's client needs no HTTP client beside it, and no engine.
__getattr__ = imported_on_demand(
    __name__,
    {
        "AmqpBroker": "fuseline.broker.amqp",
        "HttpBroker": "fuseline.broker.http",
        "MemoryBroker": "fuseline.broker.memory",
    },
)
