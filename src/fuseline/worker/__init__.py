"""Workers: they execute the steps of workflows, for every broker."""

from fuseline.worker.process_engine import LocalBrokerClient, ProcessEngine
from fuseline.worker.worker import Worker

__all__ = ["LocalBrokerClient", "ProcessEngine", "Worker"]
