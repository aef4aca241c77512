"""Fuseline's own processes in a benchmark: the coordinator and the worker as their commands make them, and countable."""

from __future__ import annotations

import cProfile
from collections.abc import Callable
from pathlib import Path

from fuseline.amqp.topology import Topology
from fuseline.amqp.traffic import Traffic
from fuseline.bench.flows import workflows
from fuseline.bench.parent import Parent
from fuseline.bench.works import Work
from fuseline.collecting import keep_what_is_loaded, search_seldom
from fuseline.coordinator import Coordinator
from fuseline.notify import Notifier
from fuseline.settings import Settings
from fuseline.storage.sql import SqlRuntimeStorage, open_storage
from fuseline.worker import Worker


class _Telling(Notifier):
    """Tells the parent, in the place of systemd, that the worker takes steps."""

    def __init__(self, parent: Parent) -> None:
        super().__init__({})
        self._parent = parent

    def ready(self, status: str = "") -> None:
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
    search_seldom()
    try:
        profiled(coordinator.run, job.get("profile"))
    finally:
        storage.close()


def run_worker(parent: Parent) -> None:
    """A worker with every workflow of a work, until the parent is gone."""
    job = parent.job
    worker = Worker(
        job["amqp_url"],
        workflows(Work.from_json(job["work"])),
        concurrency=job["concurrency"],
        executor="async",
        settings=Settings(fusion_hops=job["fusion_hops"]),
        topology=Topology(job["prefix"]),
        notifier=_Telling(parent),
    )
    parent.listen(lambda _question: parent.tell(_traffic(worker.traffic)), worker.stop)
    keep_what_is_loaded()
    search_seldom()
    profiled(worker.run, job.get("profile"))
