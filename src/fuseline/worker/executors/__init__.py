"""Where step bodies run: threads, processes, and a loop of their own. Never on the thread that talks to RabbitMQ."""

from fuseline.worker.executors.base import Done, Executor, Job, Running
from fuseline.worker.executors.loops import LoopExecutor
from fuseline.worker.executors.processes import ProcessExecutor
from fuseline.worker.executors.threads import ThreadExecutor

__all__ = ["Done", "Executor", "Job", "LoopExecutor", "ProcessExecutor", "Running", "ThreadExecutor"]
