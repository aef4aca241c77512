"""What an installation needs, as a part of `docs/operations/sizing.md`: what was measured, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fuseline.bench.page import figure, table
from tests.bench.scale.found import Found, Price, Purge
from tests.bench.scale.works import CHAIN, FUSED, LARGE

RATES: Final = (1_000, 10_000, 100_000)
LOAD: Final = 0.6
"""How busy one process may be planned to be: what is left is for peaks, and for whoever does the work of one that died."""
DAY_SECONDS: Final = 86_400
_WAL: Final = "PostgreSQL's log (WAL)"
_TABLES: Final = "tables and indexes"
_RABBITMQ_DISK: Final = "RabbitMQ's disk"


@dataclass(frozen=True, slots=True)
class Need:
    """One line of what a rate needs: `of(price, rate)` in `unit`."""

    what: str
    of: Callable[[Price, float], str]


def cpus(price: Price, who: str, rate: float) -> float:
    """CPUs that these use at so many steps a second."""
    return price.cpu_ms[who] * rate / 1000


def processes(price: Price, who: str, rate: float) -> int:
    """Processes of one thread each, none busier than `LOAD`."""
    return max(1, math.ceil(cpus(price, who, rate) / LOAD))


def ceiling(ms: float) -> float:
    """Steps a second that one thread can do which takes `ms` for each."""
    return 1000 / ms if ms else math.inf


def _number(value: float, unit: str) -> str:
    return f"{figure(value)} {unit}"


def _bytes_a_second(name: str) -> Callable[[Price, float], str]:
    return lambda price, rate: _number(price.written.get(name, 0.0) * rate / 1e6, "MB/s")


NEEDS: Final[Sequence[Need]] = (
    Need("coordinators", lambda p, rate: str(processes(p, "coordinator", rate))),
    Need("worker processes, for Fuseline's part alone", lambda p, rate: str(processes(p, "workers", rate))),
    Need("RabbitMQ, one copy of each message", lambda p, rate: _number(cpus(p, "rabbitmq", rate), "CPUs")),
    Need("PostgreSQL", lambda p, rate: _number(cpus(p, "postgresql", rate), "CPUs")),
    Need("messages", lambda p, rate: _number(p.counts["messages"] * rate, "a second")),
    Need("into RabbitMQ", _bytes_a_second("to RabbitMQ")),
    Need("out of RabbitMQ", _bytes_a_second("from RabbitMQ")),
    Need("SQL statements", lambda p, rate: _number(p.counts["sql_statements"] * rate, "a second")),
    Need("commits, each a disk flush", lambda p, rate: _number(p.counts["sql_commits"] * rate, "a second")),
    Need("PostgreSQL's log (WAL)", _bytes_a_second(_WAL)),
    Need("RabbitMQ's disk, each copy", _bytes_a_second(_RABBITMQ_DISK)),
    Need(
        "growth of the database",
        lambda p, rate: _number(p.written.get(_TABLES, 0.0) * rate * DAY_SECONDS / 1e9, "GB a day"),
    ),
)


def shown(found: Found) -> str:
    """The whole part; raises `SystemExit` where what it is made from was not measured."""
    chain = found.price(CHAIN)
    if chain is None:
        raise SystemExit("what a step costs was not measured: --only works")
    about = found.machine
    where = (
        f"Measured on {about['cpus']} CPUs, {about['system']}, Python {about['python']}: one coordinator, two workers, one "
        "RabbitMQ node and PostgreSQL on one machine, queues kept full (but for the chain that runs alone)."
    )
    parts = [
        where,
        "### CPU milliseconds of a step (measured)",
        _cpu(found),
        "### Messages and statements of a step (measured)",
        _counts(found),
        "### Bytes of a step (measured)",
        _bytes(found),
        "### What chains of 10 steps need (arithmetic)",
        _rates(chain),
        "### The same for other work, at 10,000 steps a second (arithmetic)",
        _works(found),
        "### Deleting old runs (measured)",
        _purges(found),
        "### What one of it can do (arithmetic)",
        _ceilings(chain, found.purges),
    ]
    return "\n\n".join(parts)


def _cpu(found: Found) -> str:
    who = list(found.prices[0].cpu_ms)
    rows = [
        [
            one.title,
            *(f"{one.cpu_ms[name]:.3f}" for name in who),
            f"{sum(one.cpu_ms.values()):.3f}",
            f"{one.memory.peak:.0f}",
        ]
        for one in found.prices
    ]
    return table(["work", *who, "all", "coordinator, MB at most"], rows)


def _counts(found: Found) -> str:
    what = list(found.prices[0].counts)
    rows = [[one.title, *(f"{one.counts.get(name, 0.0):.3f}" for name in what)] for one in found.prices]
    return table(["work", *(name.replace("_", " ") for name in what)], rows)


def _bytes(found: Found) -> str:
    what = list(found.prices[0].written)
    rows = [[one.title, *(f"{one.written.get(name, 0.0):,.0f}" for name in what)] for one in found.prices]
    return table(["work", *what], rows)


def _rates(price: Price) -> str:
    rows = [[need.what, *(need.of(price, rate) for rate in RATES)] for need in NEEDS]
    return table(["", *(f"{rate:,} steps/s" for rate in RATES)], rows)


def _works(found: Found) -> str:
    chosen = [one for one in found.prices if one.work in (CHAIN, FUSED, LARGE)]
    rows = [[need.what, *(need.of(price, 10_000) for price in chosen)] for need in NEEDS]
    return table(["", *(one.title for one in chosen)], rows)


def _purges(found: Found) -> str:
    rows = [
        [f"{one.runs:,}", str(one.rows), f"{one.runs_per_s:,.0f}", f"{one.runs_per_s * one.rows:,.0f}"]
        for one in found.purges
    ]
    return table(["runs in the database", "rows of each", "runs deleted a second", "rows"], rows)


def _ceilings(price: Price, purges: Sequence[Purge]) -> str:
    """Of whatever is one thread or one Erlang process, the first to be full first."""
    rabbitmq = price.cpu_ms["rabbitmq"]
    # A row of each step; of each run one, and one of its inputs.
    rows = 1 + 2 * price.runs / price.steps
    parts = [
        ("a coordinator (one thread)", price.cpu_ms["coordinator"], "CPU time"),
        ("a worker process", price.cpu_ms["workers"], "CPU time"),
        ("a coordinator's session in PostgreSQL (one process)", price.cpu_ms["postgresql"], "CPU time"),
        *(
            (f"RabbitMQ: {name}", share * rabbitmq, f"{100 * share:.0f} % of RabbitMQ's CPU time")
            for name, share in price.erlang.items()
            if "queue" in name and not name.startswith("segments")
        ),
        *(
            (
                f"`fuseline runs purge`, of {one.runs:,} runs",
                1000 * rows / (one.runs_per_s * one.rows),
                f"{rows:.1f} rows a step",
            )
            for one in purges
        ),
    ]
    lines = [
        [name, f"{ms:.4f}", f"{ceiling(ms):,.0f}", f"{LOAD * ceiling(ms):,.0f}", how]
        for name, ms, how in sorted(parts, key=lambda part: -part[1])
    ]
    heads = ["one of", "ms a step", "steps/s when full", f"at {100 * LOAD:.0f} %", "from"]
    return table(heads, lines)
