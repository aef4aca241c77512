"""Fuseline's own processes in a benchmark: the coordinator and the worker as their commands make them, and countable."""

from __future__ import annotations

import cProfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fuseline.amqp.topology import Topology
from fuseline.amqp.traffic import Traffic
from fuseline.bench.flows import workflows
from fuseline.bench.parent import Parent
from fuseline.bench.works import Work
from fuseline.collecting import MANY_NEW_OBJECTS, keep_what_is_loaded, search_seldom
from fuseline.coordinator import Coordinator
from fuseline.notify import Notifier
from fuseline.settings import Settings
from fuseline.storage.sql import SqlRuntimeStorage, open_storage
from fuseline.worker import Worker
from fuseline.workflow import Workflow


class _Telling(Notifier):
    """Tells the parent, in the place of systemd, when so many workers take steps."""

    def __init__(self, parent: Parent, count: int = 1) -> None:
        super().__init__({})
        self._parent = parent
        self._left = count
        self._lock = threading.Lock()

    def ready(self, status: str = "") -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._parent.ready()


def _traffic(traffic: Traffic) -> dict[str, int]:
    return {"messages": traffic.published, "frames": traffic.frames, "acks": traffic.acks}


def profiled(run: Callable[[], object], file: str | None) -> None:
    """Run; with a file, under cProfile, whose figures it gets."""
    if file is None:
        run()
        return
    profile = cProfile.Profile()
    try:
        profile.runcall(run)
    finally:
        profile.dump_stats(Path(file))


def run_coordinator(parent: Parent) -> None:
    """A coordinator with the settings' defaults, until the parent is gone."""
    job = parent.job
    storage = open_storage(job["database_url"])
    assert isinstance(storage, SqlRuntimeStorage)
    coordinator = Coordinator(
        storage,
        job["amqp_url"],
        topology=Topology(job["prefix"]),
        batch=Settings.model_fields["batch"].default,
        on_ready=parent.ready,
    )
    parent.listen(
        lambda _question: parent.tell(
            {
                **_traffic(coordinator.traffic),
                "sql_statements": storage.statements,
                "sql_commits": storage.commits,
            }
        ),
        coordinator.stop,
    )
    keep_what_is_loaded()
    search_seldom(MANY_NEW_OBJECTS)
    try:
        profiled(coordinator.run, job.get("profile"))
    finally:
        storage.close()


def _worker(job: Mapping[str, Any], flows: Sequence[Workflow], notifier: Notifier) -> Worker:
    return Worker(
        job["amqp_url"],
        flows,
        concurrency=job["concurrency"],
        executor="async",
        settings=Settings(fusion_hops=job["fusion_hops"]),
        topology=Topology(job["prefix"]),
        notifier=notifier,
    )


def run_worker(parent: Parent) -> None:
    """A worker with every workflow of a work, until the parent is gone."""
    job = parent.job
    worker = _worker(job, workflows(Work.from_json(job["work"])), _Telling(parent))
    parent.listen(lambda _question: parent.tell(_traffic(worker.traffic)), worker.stop)
    keep_what_is_loaded()
    search_seldom()
    profiled(worker.run, job.get("profile"))


def run_workers(parent: Parent) -> None:
    """Many workers in one process, until the parent is gone.

    Each has its connections, its loop and its heartbeats: servers and coordinators cannot tell it from a process of its own.
    """
    job = parent.job
    flows = workflows(Work.from_json(job["work"]))
    notifier = _Telling(parent, job["count"])
    workers = [_worker(job, flows, notifier) for _ in range(job["count"])]
    threads = [threading.Thread(target=one.run, name=f"worker {one.worker_id}") for one in workers]
    for thread in threads:
        thread.start()
    keep_what_is_loaded()
    search_seldom()
    for _question in parent.questions():
        total = sum((one.traffic for one in workers), Traffic())
        parent.tell(_traffic(total))
    for one in workers:
        one.stop()
    for thread in threads:
        thread.join()
