"""What hands steps to workers: one interface, in this process, over RabbitMQ, over HTTP."""

import importlib
from typing import TYPE_CHECKING, Any

from fuseline.broker.base import Broker
from fuseline.model.messages import StepAssignment, StepReport

if TYPE_CHECKING:
    from fuseline.broker.amqp import AmqpBroker
    from fuseline.broker.http import HttpBroker
    from fuseline.broker.memory import MemoryBroker

__all__ = ["AmqpBroker", "Broker", "HttpBroker", "MemoryBroker", "StepAssignment", "StepReport"]

# Each is imported by whoever uses it: a worker that has RabbitMQ's client needs no HTTP client beside it, and no engine.
_BROKERS = {
    "AmqpBroker": "fuseline.broker.amqp",
    "HttpBroker": "fuseline.broker.http",
    "MemoryBroker": "fuseline.broker.memory",
}


def __getattr__(name: str) -> Any:
    if name in _BROKERS:
        return getattr(importlib.import_module(_BROKERS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
