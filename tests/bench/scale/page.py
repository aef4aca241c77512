"""How it scales, as a part of `docs/performance.md`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fuseline.bench.page import figure, table
from tests.bench.scale.found import Found, Point, Statement
from tests.bench.scale.plan import Section
from tests.bench.scale.start import PROGRAMS, WHEEL, WORKER

_PYDANTIC: Final = "import pydantic"
_MUST: Final = {"import fuseline": "under 150 ms", "fuseline --help": "under 400 ms"}
_OF_STATEMENTS: Final = (
    "The statements that a step costs, executed and rolled back: the least time of 20, as PostgreSQL says it, and the "
    "blocks of 8 KiB that it touched."
)
_OF_REST: Final = (
    "CPU milliseconds a second (1,000 would be one CPU), messages and statements a second, and megabytes of the "
    "coordinator."
)
_OF_STEPS: Final = (
    "CPU milliseconds a step, and megabytes of the coordinator (of the larger of two): before, at most, "
    "afterwards."
)
_OF_FLOOR: Final = (
    "CPU milliseconds a step of the same runs, by the least code that keeps the same promises: what it costs more with more "
    "queues is RabbitMQ's own, and that of messages which come one by one."
)
_OVER_ALL: Final = (
    Section.WIDTH,
    Section.LENGTH,
    Section.RECORDED,
    Section.REGISTERED,
    Section.USED,
    Section.FLOOR,
    Section.REPEATED,
    Section.COORDINATORS,
)


def shown(found: Found) -> str:
    """The whole part."""
    about = found.machine
    parts = [f"{about['cpus']} CPUs, {about['system']}, Python {about['python']}.", "### Altogether"]
    parts.append(_overview(found))
    for section in Section:
        points = found.of(section)
        if not points:
            continue
        parts += [f"### {section[0].upper()}{section[1:]}", _section(section, points)]
        if section is Section.RECORDED and found.statements:
            parts += [_OF_STATEMENTS, _statements(found.statements)]
    if found.start:
        parts += ["### Starting", _start(found)]
    return "\n\n".join(parts)


def _overview(found: Found) -> str:
    rows = []
    for section in _OVER_ALL:
        points = found.of(section)
        if len(points) > 1:
            first, last = points[0], points[-1]
            rows.append(
                [
                    section.value,
                    f"{first.size:,} to {last.size:,}",
                    f"{first.total:.3f} to {last.total:.3f}",
                    f"{last.total / first.total:.2f}",
                    f"{max(one.total for one in points) / first.total:.2f}",
                    f"{first.memory.peak:.0f} to {last.memory.peak:.0f}" if first.memory.peak else "",
                ]
            )
    heads = ["what grows", "from and to", "CPU ms a step", "ratio", "greatest", "coordinator, MB at most"]
    return table(heads, rows)


def _section(section: Section, points: Sequence[Point]) -> str:
    who = list(points[0].cpu_ms)
    has_rate = section is Section.COORDINATORS
    is_rest = section is Section.REST
    heads = [_counted(section), *who, "all"]
    heads += ["messages", "SQL statements"] if is_rest else ["ratio"]
    heads += ["steps/s (range)"] if has_rate else []
    heads += ["MB before", "at most", "after"] if points[0].memory.peak else []
    rows = []
    for one in points:
        row = [f"{one.size:,}", *(f"{one.cpu_ms[name]:.3f}" for name in who), f"{one.total:.3f}"]
        if is_rest:
            row += [f"{one.counts['messages']:.2f}", f"{one.counts['sql_statements']:.2f}"]
        else:
            row.append(f"{one.total / points[0].total:.2f}" if points[0].total else "")
        if has_rate and one.steps_per_s is not None:
            middle, least, most = (figure(rate) for rate in one.steps_per_s)
            row.append(f"{middle} ({least} to {most})")
        if one.memory.peak:
            row += [f"{one.memory.before:.0f}", f"{one.memory.peak:.0f}", f"{one.memory.after:.0f}"]
        rows.append(row)
    about = _OF_REST if is_rest else _OF_FLOOR if section is Section.FLOOR else _OF_STEPS
    return f"{about}\n\n{table(heads, rows)}"


def _counted(section: Section) -> str:
    return "how many" if section is Section.REST else section.value.partition(" ")[0]


def _statements(statements: Sequence[Statement]) -> str:
    sizes = sorted({one.runs for one in statements})
    by_name: dict[str, dict[int, Statement]] = {}
    for one in statements:
        by_name.setdefault(one.name, {})[one.runs] = one
    rows = [
        [f"`{name}`", *(_time(at[size]) if size in at else "" for size in sizes)]
        for name, at in by_name.items()
    ]
    return table(["statement", *(f"{size:,} runs" for size in sizes)], rows)


def _time(one: Statement) -> str:
    wrong = f", **{'; '.join(one.complaints)}**" if one.complaints else ""
    return f"{one.ms:.3f} ms, {one.blocks}{wrong}"


def _start(found: Found) -> str:
    by = found.start[_PYDANTIC]
    rows = []
    for name in PROGRAMS:
        one = found.start[name]
        rows.append(
            [
                f"`{name}`",
                f"{one['wall_ms']:.0f} ms",
                f"{one['cpu_ms']:.0f} ms",
                f"{one['wall_ms'] / by['wall_ms']:.2f}",
                f"{one['cpu_ms'] / by['cpu_ms']:.2f}",
                _MUST.get(name, ""),
            ]
        )
    heads = [
        "program",
        "least time",
        "median CPU",
        f"time by that of `{_PYDANTIC}`",
        "CPU by its CPU",
        "must be",
    ]
    sizes = (
        f"A `fuseline worker` with one small workflow, connected, at rest: {found.start[WORKER]['resident_mb']:.1f} MB "
        f"resident (must be under 60). The wheel: {found.start[WHEEL]['kb']:.0f} KB."
    )
    told = "A fresh interpreter each time, all in turn; what the first one takes, which does nothing, is in each."
    return f"{told}\n\n{table(heads, rows)}\n\n{sizes}"
