"""The demonstration in one process: a broker over a SQLite file, and a worker beside it."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from fuseline.broker.base import Broker
from fuseline.cli.demo.summary import Summary, summarize
from fuseline.cli.watch import watch_run
from fuseline.cli.wiring import open_broker
from fuseline.examples.stdlib_report import stdlib_report
from fuseline.settings import Settings
from fuseline.worker import Worker

TARGET = "fuseline.examples.stdlib_report:stdlib_report"


def run_embedded(folder: Path, inputs: dict[str, Any], console: Console) -> Summary:
    """Execute the workflow; the database stays in `folder`, so that the run can be looked at afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(database_url=f"sqlite:///{folder / 'fuseline.db'}")
    console.print(f"broker  embedded, on {settings.database_url}", style="dim")
    with open_broker(settings, embedded=True) as broker:
        # By name, so that the processes in which the steps run can import it.
        worker = Worker(broker, [TARGET], executor="process", settings=settings)
        thread = threading.Thread(target=worker.run, name="fuseline demo worker")
        thread.start()
        try:
            instance_id = stdlib_report.dispatch(broker, inputs)
            console.print(f"run     {instance_id}\n", style="dim")
            run = watch_run(broker, instance_id, console, names=partial(_names, broker))
        finally:
            worker.stop()
            thread.join()
    return summarize(run, {step.worker_id or "": "this process" for step in run.steps.values()})


def _names(broker: Broker) -> dict[str, str]:
    return {worker.worker_id: "this process" for worker in broker.list_workers()}
