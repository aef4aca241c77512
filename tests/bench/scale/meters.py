"""What is read before and after a work beside clocks and counters: memory, disk writes, bytes on the wire, Erlang's work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from fuseline.bench.cpu import with_children
from fuseline.bench.systems import Installation, Place
from tests.bench.scale.found import Memory

_PROC: Final = Path("/proc")
_KIB_IN_MB: Final = 1024 / 1e6
_ALL_REDUCTIONS: Final = (
    'iolist_to_binary([io_lib:format("~w ~w ~w;", [P, case erlang:process_info(P, registered_name) of'
    " {_, N} -> N; _ -> element(1, proc_lib:translate_initial_call(P)) end, R])"
    " || P <- processes(), {_, R} <- [erlang:process_info(P, reductions)]])."
)
_KINDS: Final = (
    ("the reports' queue", re.compile(r"\.reports'?$")),
    ("queues of steps", re.compile(r"\.steps\.")),
    ("the log of all queues (one process)", re.compile(r"^ra_log_wal$")),
    ("segments of queues", re.compile(r"segment")),
    ("connections", re.compile(r"rabbit_(reader|writer|heartbeat)|rabbit_connection")),
    ("channels", re.compile(r"rabbit_channel|rabbit_limiter|^rabbit_amqp")),
)


def resident_mb(pid: int, what: str = "VmRSS") -> float:
    """Of one process, in 10^6 bytes; `VmHWM` is the most since `forget_peak`."""
    found = re.search(rf"^{what}:\s+(\d+) kB", (_PROC / str(pid) / "status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * _KIB_IN_MB


def forget_peak(pid: int) -> None:
    """Let the most that it had be what it has now."""
    (_PROC / str(pid) / "clear_refs").write_text("5")


class Watch:
    """The memory of the coordinators, from here on: of the one that has most."""

    def __init__(self, installation: Installation) -> None:
        self._pids = list(installation.groups["coordinator"])
        for pid in self._pids:
            forget_peak(pid)
        self._before = self._most("VmRSS")

    def memory(self) -> Memory:
        """Until now."""
        return Memory(self._before, self._most("VmHWM"), self._most("VmRSS"))

    def _most(self, what: str) -> float:
        return max(resident_mb(pid, what) for pid in self._pids)


def bytes_written(pids: Iterable[int]) -> int:
    """By these processes and their descendants, those that ended included: what the kernel was given for a disk."""
    total = 0
    for pid in with_children(pids):
        try:
            told = (_PROC / str(pid) / "io").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it ended just now
            continue
        total += int(told.partition("write_bytes:")[2].split()[0])
    return total


@dataclass(frozen=True, slots=True)
class Meters:
    """Readings of private servers; what costs RabbitMQ something comes first before a work, and last after it."""

    place: Place
    installation: Installation

    def written(self) -> dict[str, float]:
        """Bytes so far, by where they went."""
        with psycopg.connect(self.place.database_url, autocommit=True) as connection:
            row = connection.execute(
                "SELECT pg_current_wal_insert_lsn() - '0/0', pg_database_size(current_database())"
            ).fetchone()
        assert row is not None
        found = {"PostgreSQL's log (WAL)": float(row[0]), "tables and indexes": float(row[1])}
        for name, shown in (("postgresql", "PostgreSQL's disk"), ("rabbitmq", "RabbitMQ's disk")):
            if name in self.installation.groups:
                found[shown] = float(bytes_written(self.installation.groups[name]))
        return found

    def octets(self) -> dict[str, float]:
        """Bytes over AMQP so far, of the connections that are there now."""
        if self.place.rabbitmqctl is None:
            return {}
        told = self.place.rabbitmqctl("--quiet", "list_connections", "recv_oct", "send_oct")
        rows = [line.split() for line in told.splitlines()]
        pairs = [(int(row[0]), int(row[1])) for row in rows if len(row) == 2 and row[0].isdigit()]
        return {
            "to RabbitMQ": float(sum(one for one, _ in pairs)),
            "from RabbitMQ": float(sum(one for _, one in pairs)),
        }

    def reductions(self) -> dict[str, int]:
        """Work of each Erlang process so far, in Erlang's own unit; by process and what it is."""
        if self.place.rabbitmqctl is None:
            return {}
        told = self.place.rabbitmqctl("--quiet", "eval", _ALL_REDUCTIONS)
        told = re.sub(r'"\s*\n\s*"', "", told)  # a long text is shown in parts
        return {
            f"{pid} {name}": int(count) for pid, name, count in re.findall(r"(<[\d.]+>) (\S+) (\d+);", told)
        }


def kinds(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, float]:
    """The part that each kind of process had in the work between two readings."""
    totals = dict.fromkeys([name for name, _ in _KINDS], 0)
    rest = 0
    for key, count in after.items():
        name = key.partition(" ")[2]
        used = count - before.get(key, 0)
        kind = next((kind for kind, pattern in _KINDS if pattern.search(name)), None)
        if kind is None:
            rest += used
        else:
            totals[kind] += used
    everything = sum(totals.values()) + rest
    if not everything:
        return {}
    return {name: count / everything for name, count in {**totals, "the rest": rest}.items()}
