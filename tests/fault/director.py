"""The adversary: which fault comes next, whether it was felt, and how long the recovery took."""

from __future__ import annotations

import time
import traceback
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any, Final

from tests.fault.adversary import database, messages, network, parties, queues_and_nodes
from tests.fault.adversary.base import Fault, Stage
from tests.fault.world import World

ALL: Final = [
    *parties.FAULTS,
    *queues_and_nodes.FAULTS,
    *database.FAULTS,
    *messages.FAULTS,
    *network.FAULTS,
]
RECOVERY_SECONDS: Final = 75.0
"""A system that gets nothing done for so long after a fault is over has not recovered."""


@dataclass
class Injected:
    """One fault that was done. Times since the epoch; recoveries in seconds from `ended_at`."""

    kind: str
    target: str
    began_at: float
    ended_at: float
    bite: str | None = None
    recovery: dict[str, float | None] = field(default_factory=dict)


class Director:
    """Does faults one after the other until its time is over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._options = world.options
        self._random = Random(f"{world.options.seed}/adversary")
        self._stage = Stage(world, Random(f"{world.options.seed}/faults"), self._wait)
        self._faults = [
            fault
            for fault in ALL
            if world.options.topology in fault.topologies and (fault.is_quick or not world.options.is_quick)
        ]
        self._bag: list[Fault] = []
        self.injected: list[Injected] = []
        self.broken: list[str] = []

    def run(self) -> None:
        """Until the options' time or number of faults is reached."""
        scheduled = time.monotonic()
        until = scheduled + self._options.seconds
        while time.monotonic() < until and (
            self._options.faults is None or len(self.injected) < self._options.faults
        ):
            # What takes long is made up for by what does not, so that the rate holds over the whole.
            scheduled += 60.0 / self._options.faults_per_minute
            self._do(self._next())
            calm = self._random.uniform(0.5, 1.5)
            self._wait(max(calm, scheduled - time.monotonic()))

    def _wait(self, seconds: float) -> bool:
        time.sleep(seconds)
        return False

    def _next(self) -> Fault:
        """From a bag that holds each fault as often as it weighs, so that all of them come."""
        if not self._bag:
            first = list(self._faults)
            again = [fault for fault in self._faults for _ in range(fault.weight - 1)]
            self._random.shuffle(first)
            self._random.shuffle(again)
            self._bag = again + first  # taken from the end: each once before any twice
        return self._bag.pop()

    def _do(self, fault: Fault) -> None:
        stage, world = self._stage, self._world
        stage.begin()
        began = world.history.write("fault", kind=fault.kind)
        try:
            evidence = fault.act(stage)
        except Exception as error:  # noqa: BLE001 - a harness that breaks has to say where, and the verdict is FAILED
            self.broken.append(f"{fault.kind}: {type(error).__name__}: {error}")
            world.history.write(
                "harness broke", kind=fault.kind, target=stage.target, trace=traceback.format_exc()
            )
            self.heal()
            return
        injected = Injected(fault.kind, stage.target, began, time.time())
        world.history.write("fault over", kind=fault.kind, target=stage.target)
        injected.recovery = self._recover(injected.ended_at)
        injected.bite = evidence()
        if injected.recovery["step"] is None:
            world.complain(f"nothing got done within {RECOVERY_SECONDS:g} s after {fault.kind}")
        self.injected.append(injected)
        world.history.write("recovered", **asdict(injected))

    def _recover(self, ended_at: float) -> dict[str, float | None]:
        """Seconds until the next step and run ended, and until the next dispatch was acknowledged."""
        found: dict[str, float | None] = {"step": None, "run": None, "dispatch": None}
        deadline = time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < deadline:
            step, run = self._world.progress.ended_since(self._stage.seq, ended_at)
            acknowledged = self._world.dispatcher.last_acknowledged_at
            moments: dict[str, Any] = {
                "step": step,
                "run": run,
                "dispatch": acknowledged if acknowledged > ended_at else None,
            }
            for name, at in moments.items():
                if at is not None and found[name] is None:
                    found[name] = max(0.0, at - ended_at)
            if all(value is not None for value in found.values()):
                break
            self._wait(0.15)
        return found

    def heal(self) -> None:
        """Whatever a fault has left behind: servers run, alarms are off, every party goes on."""
        world = self._world
        for proxies in world.lines.values():
            for proxy in proxies:
                proxy.heal()
        for server in (world.cluster or world.nodes[0], world.postgres):
            server.start()
        if self.broken:  # each command takes seconds, and a fault that ran to its end has undone what it did
            self._heal_nodes()
        for party in world.parties:
            with party.lock:
                if party.process is not None:
                    party.process.thaw()
                if party.is_down:
                    party.start()

    def _heal_nodes(self) -> None:
        world = self._world
        if world.cluster is not None:
            world.cluster.heal()
        for index, node in enumerate(world.nodes):
            if world.cluster is None:
                node.rabbitmqctl("start_app")
            else:
                world.cluster.start_app(index)
            node.rabbitmqctl("set_vm_memory_high_watermark", "0.4")
            node.rabbitmqctl("set_disk_free_limit", "50MB")
