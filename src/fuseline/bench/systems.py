"""The systems that are measured: each in processes of its own, made for one measurement."""

from __future__ import annotations

import os
import secrets
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from fuseline.amqp.topology import Topology
from fuseline.bench.children import READY_SECONDS, Child
from fuseline.bench.cpu import cpu_seconds, difference
from fuseline.bench.driving import FOLLOW_SECONDS, Driver
from fuseline.bench.floor.queues import declare, delete, delete_topology
from fuseline.bench.flows import workflows
from fuseline.bench.samples import Sample, Timing
from fuseline.bench.works import Work
from fuseline.broker.amqp import AmqpBroker
from fuseline.storage.base import RuntimeStorage
from fuseline.storage.sql import open_storage

WORKERS: Final = 2
CONCURRENCY: Final = 64
FUSION_HOPS: Final = 20
"""With which chains are measured fused: as long as the longest of the works."""
COUNT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """The servers of one round. `server_pids` by name, of those that are on this machine and our own."""

    amqp_url: str
    database_url: str
    server_pids: Mapping[str, int]
    rabbitmqctl: Callable[..., str] | None = None
    """Asks RabbitMQ's own tool, where it is private."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a measurement is made with: a folder for logs, and one for profiles where they are wanted."""

    folder: Path
    workers: int = WORKERS
    concurrency: int = CONCURRENCY
    profiles: Path | None = None
    ready_seconds: float = READY_SECONDS
    coordinators: int = 1


class System(ABC):
    """One system. `name` is that of the results; `fusion` whether steps are fused."""

    name: ClassVar[str]
    fusion: bool = False
    needs_servers: ClassVar[bool] = True

    @abstractmethod
    def measure(self, work: Work, place: Place | None, setting: Setting) -> Sample:
        """Do the work once to warm up (a smaller one), and once for the sample. Raises `BenchFailedError`."""


def _timing(told: Mapping[str, Any]) -> Timing:
    return Timing(told["seconds"], told["dispatch_seconds"], tuple(told["run_seconds"]))


def _sampled(
    work: Work,
    do: Callable[[Work], Timing],
    read_cpu: Callable[[], Mapping[str, float]],
    children: Sequence[Child],
) -> Sample:
    """Warm up, then do the work."""
    do(work.warm_up())
    return _sample(work, do, read_cpu, children)


def _sample(
    work: Work,
    do: Callable[[Work], Timing],
    read_cpu: Callable[[], Mapping[str, float]],
    children: Sequence[Child],
) -> Sample:
    """Do the work between two readings of the clocks and counters."""
    counts = _counts(children)
    cpu = read_cpu()
    timing = do(work)
    used = difference(cpu, read_cpu())
    after = _counts(children)
    return Sample(timing, used, {name: after[name] - counts.get(name, 0) for name in after})


def _counts(children: Sequence[Child]) -> dict[str, int]:
    total: dict[str, int] = {}
    for child in children:
        for name, count in child.ask("count", COUNT_SECONDS).items():
            total[name] = total.get(name, 0) + count
    return total


def _servers(place: Place) -> dict[str, list[int]]:
    return {name: [pid] for name, pid in place.server_pids.items()}


class Floor(System):
    """`floor`: see there."""

    name = "floor"

    def measure(self, work: Work, place: Place | None, setting: Setting) -> Sample:
        assert place is not None
        token = secrets.token_hex(4)
        reports = f"fuseline-floor-{token}.reports"
        assignments = [f"fuseline-floor-{token}.assignments-{flow}" for flow in range(work.flows)]
        job = {
            "amqp_url": place.amqp_url,
            "database_url": place.database_url,
            "assignments": assignments,
            "reports": reports,
            "table": f"fuseline_floor_{token}",
        }
        with ExitStack() as stack:
            declare(place.amqp_url, [*assignments, reports])
            stack.callback(delete, place.amqp_url, [*assignments, reports])
            workers = [
                stack.enter_context(Child("floor-worker", f"floor-worker-{number}", job, setting.folder))
                for number in range(setting.workers)
            ]
            coordinator = stack.enter_context(
                Child("floor-coordinator", "floor-coordinator", job, setting.folder)
            )
            for child in (*workers, coordinator):
                child.wait_ready()
            groups = {
                "coordinator": [coordinator.pid],
                "workers": [worker.pid for worker in workers],
                **_servers(place),
            }
            return _sampled(
                work,
                lambda one: _timing(coordinator.ask("work", FOLLOW_SECONDS, work=asdict(one))),
                lambda: cpu_seconds(groups),
                [coordinator, *workers],
            )


@dataclass(frozen=True, slots=True)
class Installation:
    """A Fuseline that was started for a benchmark. `groups`: process ids by who they are."""

    broker: AmqpBroker
    storage: RuntimeStorage
    topology: Topology
    children: Sequence[Child]
    groups: Mapping[str, Sequence[int]]

    def sample(self, work: Work) -> Sample:
        """Do the work once to warm up, and once for the sample. Raises `BenchFailedError`."""
        driver = Driver(self.broker, self.storage, check=self.check)
        driver.do(work.warm_up())
        return self.sample_of(work, driver)

    def sample_of(self, work: Work, driver: Driver) -> Sample:
        """Do the work for the sample, without warming up."""
        return _sample(work, driver.do, self.read_cpu, self.children)

    def check(self) -> None:
        """Raise `BenchFailedError` when one of its processes has ended."""
        for child in self.children:
            child.check()

    def read_counts(self) -> dict[str, int]:
        """Messages, frames, statements and so on of all of its processes so far."""
        return _counts(self.children)

    def read_cpu(self) -> dict[str, float]:
        """CPU seconds so far, by who used them; this process dispatches."""
        own = os.times()
        return {**cpu_seconds(self.groups), "dispatcher": own.user + own.system}


class Fuseline(System):
    """`fuseline`: a coordinator and workers on RabbitMQ and PostgreSQL, with everything on. With step fusion on demand."""

    name = "fuseline"

    def __init__(self, fusion_hops: int = 0) -> None:
        self.fusion = fusion_hops > 0
        self._fusion_hops = fusion_hops

    def measure(self, work: Work, place: Place | None, setting: Setting) -> Sample:
        assert place is not None
        with self.started(work, place, setting, setting.coordinators) as one:
            return one.sample(work)

    @contextmanager
    def started(
        self,
        work: Work,
        place: Place,
        setting: Setting,
        coordinators: int = 1,
        crowds: Sequence[int] = (),
    ) -> Iterator[Installation]:
        """Coordinators and workers for `work`, ready, and ended with the context.

        `crowds`: further processes, with so many workers in each, to see what many workers cost the servers.
        """
        topology = Topology(f"fuseline-bench-{secrets.token_hex(4)}")
        schemas = [flow.to_schema() for flow in workflows(work)]
        job: dict[str, Any] = {
            "amqp_url": place.amqp_url,
            "prefix": topology.prefix,
            "concurrency": setting.concurrency,
            "fusion_hops": self._fusion_hops,
            "work": asdict(work),
        }
        with ExitStack() as stack:

            def child(role: str, name: str, **more: Any) -> Child:
                told = {**job, **more, "profile": self._profile(setting, work, name)}
                return stack.enter_context(Child(role, name, told, setting.folder))

            stack.callback(delete_topology, place.amqp_url, topology, [schema.key for schema in schemas])
            recorders = []
            for number in range(coordinators):
                name = f"coordinator-{number}" if number else "coordinator"
                recorders.append(child("coordinator", name, database_url=place.database_url))
                recorders[-1].wait_ready(setting.ready_seconds)
            workers = [child("worker", f"worker-{number}") for number in range(setting.workers)]
            workers += [
                child("workers", f"workers-{number}", count=count) for number, count in enumerate(crowds)
            ]
            for worker in workers:
                worker.wait_ready(setting.ready_seconds)
            storage = open_storage(place.database_url)
            stack.callback(storage.close)
            broker = stack.enter_context(AmqpBroker(place.amqp_url, topology=topology))
            groups = {
                "coordinator": [one.pid for one in recorders],
                "workers": [worker.pid for worker in workers],
                **_servers(place),
            }
            yield Installation(broker, storage, topology, [*recorders, *workers], groups)

    def _profile(self, setting: Setting, work: Work, who: str) -> str | None:
        return _profile(setting, work, f"fused-{who}" if self.fusion else who)


def _profile(setting: Setting, work: Work, who: str) -> str | None:
    return None if setting.profiles is None else str(setting.profiles / f"{work.name}-{who}.prof")


class Embedded(System):
    """`fuseline-embedded`: a memory broker over SQLite, and a worker, in one process."""

    name = "fuseline-embedded"
    needs_servers = False
    role: ClassVar[str] = "embedded"

    def measure(self, work: Work, place: Place | None, setting: Setting) -> Sample:
        with tempfile.TemporaryDirectory(prefix="fuseline-bench-") as folder:
            job = {
                "folder": folder,
                "work": asdict(work),
                "concurrency": setting.concurrency,
                "profile": _profile(setting, work, self.role),
            }
            with Child(self.role, self.role, job, setting.folder) as child:
                child.wait_ready()
                return _sampled(
                    work,
                    lambda one: _timing(child.ask("work", FOLLOW_SECONDS, work=asdict(one))),
                    lambda: cpu_seconds({"process": [child.pid]}),
                    [child],
                )


class Local(Embedded):
    """`fuseline-local`: `Workflow.run()`, in memory, one run after the other."""

    name = "fuseline-local"
    role = "local"


SYSTEMS: Final[dict[str, System]] = {
    "floor": Floor(),
    "fuseline": Fuseline(),
    "fuseline-fused": Fuseline(FUSION_HOPS),
    "fuseline-embedded": Embedded(),
    "fuseline-local": Local(),
}
"""By the name that one asks for, in the order of their turns. (With steps fused it is the same name in the results.)"""
