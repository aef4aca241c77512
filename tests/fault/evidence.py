"""`python -m tests.fault.evidence build/fault/*/result.json [build/soak/result.json]` prints the page of evidence."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.fault.checker.invariants import INVARIANTS

CLAIM = """\
**No acknowledged dispatch, cancel or report is lost, each attempt's outcome is recorded once, each join fires once, and
every run ends, if a majority of RabbitMQ's nodes and the database's synced disk survive.** Whatever process is killed,
stopped or cut off in between, on one node or on three.

That is not "exactly once". A step's body is executed *at least* once: a worker that is killed after its work and before its
report was confirmed has done work that somebody does again. Exactly once is what happens to the *state* of a run, and so to
what follows from it. Effects on the outside world are the body's own business; `ctx.idempotency_key` is there for them.
"""

NOT_TESTED = """\
- Loss of a majority of RabbitMQ's nodes' disks, or of the database's disk; disks that lie about having synced.
- Purging or deleting `fuseline.reports`, `fuseline.commands` or `fuseline.dead`: an operator who does that throws
  acknowledged reports away. (Deleting and purging step queues is tested.)
- Byzantine parties: a worker of a workflow that lies about its own attempts is believed.
- Failover between PostgreSQL servers; transaction poolers; several machines with clocks that differ.
- RabbitMQ other than the version below, for these runs. (`make test-matrix` runs the tests of single faults on 4.0 and 4.3.)
- Corruption on the network that TCP's checksum does not see.
- Tasks of the worker's loop are not counted from outside; threads, files, memory, connections and channels are.
"""


def main(arguments: list[str] | None = None) -> int:
    """Print the page; 1 when one of the runs did not pass."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.evidence", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="result.json of fault runs, and of a soak")
    parser.add_argument("--planted", type=Path, help="what python -m tests.fault.planted printed")
    parser.add_argument("--bugs", type=Path, default=Path(__file__).with_name("bugs_found.json"))
    given = parser.parse_args(arguments)
    results = [json.loads(path.read_text(encoding="utf-8")) for path in given.results]
    soaks = [one for one in results if one.get("kind") == "soak"]
    runs = [one for one in results if one.get("kind") != "soak"]
    planted = json.loads(given.planted.read_text(encoding="utf-8")) if given.planted else None
    bugs = json.loads(given.bugs.read_text(encoding="utf-8"))
    print("\n".join(page(runs, soaks, planted, bugs)))
    return 0 if all(one["passed"] for one in results) else 1


def page(
    runs: list[dict[str, Any]],
    soaks: list[dict[str, Any]],
    planted: dict[str, Any] | None,
    bugs: list[dict[str, str]],
) -> Iterator[str]:
    """The lines of the page."""
    yield "# Evidence\n"
    yield (
        "What Fuseline promises under faults, and what was done to find it wanting. "
        "`make evidence` writes this page from the results of the runs that it tells of.\n"
    )
    yield "## The claim\n"
    yield CLAIM
    yield "## The runs\n"
    yield from _runs(runs)
    yield "\n## Invariants\n"
    yield (
        "Judged after each run by `tests/fault/checker`, which shares no decision with the engine. Its witnesses: a "
        "trigger in the database that writes down every row that is ever committed, what dispatchers were answered, "
        "logs that the steps' bodies write themselves, events, what RabbitMQ and the kernel list, "
        "heartbeats. `tests/fault/test_checker.py` feeds each "
        "invariant histories that break it.\n"
    )
    yield "| checker | what holds | violations |\n| --- | --- | --- |"
    for name, invariant in INVARIANTS.items():
        found = sum(run["invariants"].get(name, 0) for run in runs)
        said = " ".join((invariant.__doc__ or "").split())
        yield f"| `{name}` | {said} | {found} |"
    yield "\n## Counts\n"
    yield from _counts(runs)
    yield "\n## Faults\n"
    yield "Bitten: something shows that the fault was felt, as in the last column (of one of them).\n"
    yield from _faults(runs)
    yield "\n## Recovery\n"
    yield (
        "Seconds from the end of a fault until the next step ended, the next run ended, and the next dispatch was "
        "acknowledged, under a light load: what is waited for is mostly the next of them to come.\n"
    )
    yield from _recoveries(runs)
    yield "\n## Planted bugs\n"
    yield from _plants(planted)
    yield "\n## Soak\n"
    yield from _soaks(soaks)
    yield "\n## Bugs found\n"
    yield "By the work on these promises. Each has a test of its own now.\n"
    for bug in bugs:
        yield f"- {bug['what']} ({bug['found_by']})"
    yield "\n## What was not tested\n"
    yield NOT_TESTED.rstrip()


def _runs(runs: list[dict[str, Any]]) -> Iterator[str]:
    yield "| seed | when (UTC) | lasted | faults (kinds) | bitten | acknowledged | lost | double | hung | verdict |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for run in runs:
        when = datetime.fromtimestamp(run["began_at"], UTC).strftime("%Y-%m-%d %H:%M")
        cells = [
            run["seed"],
            when,
            f"{run['took_seconds'] / 60:.0f} min",
            f"{run['injected']} ({len(run['faults'])})",
            run["bitten"],
            run["counts"]["acknowledged"],
            run["lost"],
            run["double"],
            run["hung"],
            "passed" if run["passed"] else "FAILED",
        ]
        yield "| " + " | ".join(map(str, cells)) + " |"
    yield ""
    for run in runs:
        yield f"- `{run['command']}`: {', '.join(f'{k} {v}' for k, v in run['versions'].items())}"
    if runs:
        worlds = ", ".join(
            f"{name} for {seconds / 60:.0f} min" for name, seconds in runs[0]["topologies"].items()
        )
        yield (
            f"\nEach: two coordinators, three workers (threads, asyncio, processes), RabbitMQ with quorum "
            f"queues ({worlds}), PostgreSQL with fsync. T, within which every run has to end after the last fault, is "
            f"{runs[0]['within_seconds']:g} s."
        )


def _counts(runs: list[dict[str, Any]]) -> Iterator[str]:
    total: Counter[str] = Counter()
    for run in runs:
        total.update(run["counts"])
    yield "| what | number |\n| --- | --- |"
    for name in COUNTED:
        yield f"| {COUNTED[name]} | {total[name]:,} |"


COUNTED = {
    "attempted": "dispatches attempted",
    "acknowledged": "acknowledged",
    "failed": "failed: refused with an error (on purpose)",
    "indeterminate": "indeterminate: no answer in time",
    "indeterminate, took effect": "of these, took effect all the same",
    "recovered": "recovered: attempts whose holder was lost, and that were done again",
    "duplicated": "duplicated: attempts executed more than once (their outcome was recorded once)",
    "lost": "lost: acknowledged, and not there",
    "hung": "hung: not ended",
    "steps": "steps recorded",
    "executions": "executions of steps",
    "fused": "of these, begun by step fusion",
    "commits": "transactions looked into",
    "dead letters": "dead letters, all explained",
    "parked": "messages parked, all of them the adversary's",
}


def _faults(runs: list[dict[str, Any]]) -> Iterator[str]:
    yield "| kind | injected | bitten | seen |\n| --- | --- | --- | --- |"
    kinds: dict[str, list[Any]] = {}
    for run in runs:
        for kind, found in run["faults"].items():
            one = kinds.setdefault(kind, [0, 0, None])
            one[0] += found["injected"]
            one[1] += found["bitten"]
            one[2] = one[2] or found["seen"]
    for kind, (injected, bitten, seen) in sorted(kinds.items()):
        yield f"| {kind} | {injected} | {bitten} | {_cell(seen)} |"
    yield f"| **all {len(kinds)} kinds** | {_sum(kinds, 0)} | {_sum(kinds, 1)} | |"


def _sum(kinds: dict[str, list[Any]], index: int) -> int:
    return sum(one[index] for one in kinds.values())


def _cell(text: str | None) -> str:
    """A log line without its time and its addresses, short enough for a table."""
    if not text:
        return ""
    words = text.replace("|", "/").split()
    if len(words) > 3 and words[1].startswith("20"):
        words = [words[0], *words[3:]]
    short = " ".join(words)
    return (short[:100] + " …" if len(short) > 100 else short).replace("<", "&lt;")


def _recoveries(runs: list[dict[str, Any]]) -> Iterator[str]:
    merged: defaultdict[str, defaultdict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for kind, by in run["recoveries"].items():
            for what, seconds in by.items():
                merged[kind][what] += seconds
    yield "| after | step p50 | p99 | run p50 | p99 | dispatch p50 | p99 |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for kind, by in sorted(merged.items()):
        cells = [text for what in ("step", "run", "dispatch") for text in quantiles(by[what])]
        yield f"| {kind} | " + " | ".join(cells) + " |"


def quantiles(seconds: Iterable[float | None]) -> tuple[str, str]:
    """p50 and p99, as text; what never came counts as the longest."""
    ordered = sorted(float("inf") if one is None else one for one in seconds)
    if not ordered:
        return "", ""
    return tuple(f"{ordered[round(part * (len(ordered) - 1))]:.2f}" for part in (0.5, 0.99))  # type: ignore[return-value]


def _plants(planted: dict[str, Any] | None) -> Iterator[str]:
    yield (
        "The [simulation](simulation.md) has to find known bugs that are planted into the real code, so that its silence "
        "says something; `tests/simulation/test_planted.py` asks for each within 2,000 seeds, with other seeds each time.\n"
    )
    if planted is None:
        return
    yield f"From seed {planted['base_seed']} on:\n"
    yield "| planted | seeds until it was found | found by seed |\n| --- | --- | --- |"
    for name, found in planted["plants"].items():
        yield f"| {name} | {found['seeds']:,} | {found['seed']} |" if found else f"| {name} | not found | |"


def _soaks(soaks: list[dict[str, Any]]) -> Iterator[str]:
    if not soaks:
        yield "No result of a soak was given."
        return
    for soak in soaks:
        yield (
            f"`{soak['command']}`: {soak['minutes']:g} minutes, {soak['runs']:,} runs, connections cut "
            f"{soak['cuts']:,} times: {'passed' if soak['passed'] else 'FAILED'}. Flat: {soak['flat']}.\n"
        )
        if not all(one["is_slope_judged"] for one in soak["processes"].values()):
            yield "It was too short to judge a slope.\n"
        yield (
            "| process | plateau KiB | slope KiB/hour | % of the plateau an hour | slope of the second half | files "
            "| threads |"
        )
        yield "| --- | --- | --- | --- | --- | --- | --- |"
        for name, one in soak["processes"].items():
            yield (
                f"| {name} | {one['plateau_kib']:,.0f} | {one['slope_kib_per_hour']:+,.0f} | "
                f"{one['percent_per_hour']:+.1f} | {one['late_slope_kib_per_hour']:+,.0f} ± "
                f"{one['late_standard_error_kib_per_hour']:,.0f} | {one['files']} | {one['threads']} |"
            )


if __name__ == "__main__":
    sys.exit(main())
