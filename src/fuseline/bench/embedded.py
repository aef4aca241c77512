"""One process without any server: a memory broker over SQLite with a worker beside it, and `Workflow.run()`."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from pathlib import Path

from fuseline.bench.driving import Driver
from fuseline.bench.flows import inputs, workflows
from fuseline.bench.parent import Parent
from fuseline.bench.parties import profiled
from fuseline.bench.samples import Timing
from fuseline.bench.works import PAYLOAD, Work
from fuseline.broker.memory import MemoryBroker
from fuseline.collecting import keep_what_is_loaded
from fuseline.storage.sql import SqliteRuntimeStorage
from fuseline.worker import Worker


def run_embedded(parent: Parent) -> None:
    """Do works over a database in the job's folder, as the parent asks for them."""
    job = parent.job
    flows = workflows(Work.from_json(job["work"]))
    storage = SqliteRuntimeStorage(Path(job["folder"]) / "embedded.db")
    with MemoryBroker(storage, close_storage=True) as broker:
        ended = threading.Event()
        failures: list[BaseException] = []
        worker = Worker(broker, flows, concurrency=job["concurrency"], executor="async")

        def work() -> None:
            try:
                worker.run()
            except BaseException as error:
                failures.append(error)
                raise
            finally:
                ended.set()

        def check() -> None:
            if failures:
                raise failures[0]

        thread = threading.Thread(target=work, name="fuseline bench worker")
        thread.start()
        driver = Driver(broker, storage, check=check)
        try:
            parent.ready()
            keep_what_is_loaded()  # a program of its own, as the commands are
            profiled(lambda: _answer(parent, driver, storage), job.get("profile"))
        finally:
            worker.stop()
            thread.join()


def _answer(parent: Parent, driver: Driver, storage: SqliteRuntimeStorage) -> None:
    for question in parent.questions():
        if question["do"] == "count":
            parent.tell({"sql_statements": storage.statements, "sql_commits": storage.commits})
        else:
            parent.tell(asdict(driver.do(Work.from_json(question["work"]))))


def run_local(parent: Parent) -> None:
    """Do works with `Workflow.run()`, one run after the other."""
    flows = workflows(Work.from_json(parent.job["work"]))
    parent.ready()

    def answer() -> None:
        for question in parent.questions():
            if question["do"] == "count":
                parent.tell({})
                continue
            work = Work.from_json(question["work"])
            taken = []
            for run in range(work.runs):
                began = time.perf_counter()
                flows[run % len(flows)].run(inputs(work, run, PAYLOAD))
                taken.append(time.perf_counter() - began)
            parent.tell(asdict(Timing(sum(taken), None, tuple(taken) if work.serial else ())))

    profiled(answer, parent.job.get("profile"))
