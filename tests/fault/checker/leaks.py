"""What is left over: on RabbitMQ, and in the processes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fault.processes import Party
from tests.fault.world import World

LINES_EACH: Final = 2
_COORDINATORS_QUEUES: Final = 4
_SPARE_CHANNELS: Final = 2
_SPARE_FILES: Final = 16
_SPARE_THREADS: Final = 12
_SPARE_KIB: Final = 40 * 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process: resident memory, open files, threads."""

    rss_kib: int
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """As the kernel says it now. Raises `OSError` when there is no such process."""
        status = Path(f"/proc/{pid}/status").read_text()
        return cls(
            _number(status, "VmRSS"), len(list(Path(f"/proc/{pid}/fd").iterdir())), _number(status, "Threads")
        )


def _number(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    return int(found[1]) if found else 0


def usages(parties: list[Party]) -> dict[str, Usage]:
    """By party."""
    return {party.name: Usage.of(party.pid) for party in parties}


def left_in_processes(before: dict[str, Usage], after: dict[str, Usage]) -> list[str]:
    """What grew beyond what a process needs. `before`: in peace, under the same load."""
    found = []
    for name, now in after.items():
        then = before[name]
        if now.files > then.files + _SPARE_FILES:
            found.append(f"{name} has {now.files} open files, and had {then.files}")
        if now.threads > then.threads + _SPARE_THREADS:
            found.append(f"{name} has {now.threads} threads, and had {then.threads}")
        if now.rss_kib > then.rss_kib * 1.3 + _SPARE_KIB:
            found.append(f"{name} has {now.rss_kib} KiB of memory, and had {then.rss_kib}")
    return found


@dataclass(frozen=True, slots=True)
class Lines:
    """On RabbitMQ: the channels of each connection, by the name that its party gives itself."""

    by_party: dict[str, list[int]]

    @classmethod
    def of(cls, world: World) -> Lines:
        """As RabbitMQ lists them now, but for the harness's own."""
        listed = world.nodes[0].rabbitmqctl("-q", "list_connections", "client_properties", "channels")
        found: dict[str, list[int]] = {}
        for line in listed.splitlines():
            if name := re.search(r'"connection_name","(fuseline \S+ [^ "]+)', line):
                found.setdefault(name[1], []).append(int(line.split()[-1]))
        return cls(found)

    @property
    def connections(self) -> int:
        """Of all parties."""
        return sum(len(channels) for channels in self.by_party.values())

    @property
    def channels(self) -> int:
        """Of all connections."""
        return sum(sum(channels) for channels in self.by_party.values())


def left_on_rabbitmq(world: World) -> list[str]:
    """Connections of parties that are gone, more of them or of channels than a party needs, queues of nobody.

    A party publishes on one connection and consumes on another; it has a channel for each queue that it consumes and
    one to publish on, a coordinator also one for each queue of steps and one for what is parked.
    """
    now = Lines.of(world)
    problems = []
    if len(now.by_party) > len(world.parties) + 1:
        problems.append(f"connections of {len(now.by_party)} parties: {now.by_party}")
    for name, channels in now.by_party.items():
        own = 0 if " worker " in name else _COORDINATORS_QUEUES + 1
        most = _SPARE_CHANNELS + len(world.schemas) + own
        if len(channels) > LINES_EACH or sum(channels) > most:
            problems.append(f"{name} has {len(channels)} connections with {channels} channels")
    return problems + _left_queues(world)


def _left_queues(world: World) -> list[str]:
    listed = world.nodes[0].rabbitmqctl("-q", "list_queues", "name").split()
    expected = {*world.taps.names(), "harness.dead", "harness.events", "harness.copies", "name"}
    temporary = [name for name in listed if name not in expected]
    coordinators = sum(party.role == "coordinator" for party in world.parties)
    if len(temporary) > coordinators:
        return [f"temporary queues of nobody: {temporary}"]
    return []
