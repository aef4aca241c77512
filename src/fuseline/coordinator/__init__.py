"""The daemon beside RabbitMQ that records reports and queues what follows."""

from fuseline.coordinator.daemon import Coordinator

__all__ = ["Coordinator"]
