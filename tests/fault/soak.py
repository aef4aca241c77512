"""`python -m tests.fault.soak --minutes 60`: memory under flapping connections; `make soak MINUTES=60`."""

from __future__ import annotations

import argparse
import itertools
import secrets
import shutil
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import pika

from fuseline.amqp import codec
from fuseline.amqp.stopped import MAX_REMEMBERED
from fuseline.amqp.topology import DEFAULT_EXCHANGE
from fuseline.amqp.wire import ControlKind, ControlNotice
from tests.fault import verdict
from tests.fault.checker.leaks import Lines, Usage
from tests.fault.options import Options
from tests.fault.world import World

EVERY_SECONDS: Final = 10.0
LINES_EVERY: Final = 12
"""RabbitMQ is asked every so many samples: asking costs it a start of Erlang."""
LONG_SECONDS: Final = 900.0
"""What is shorter after the warm-up says nothing about an hour: its slope is shown, and not judged."""
PERCENT_PER_HOUR: Final = 5.0
SPARE_KIB_PER_HOUR: Final = 2_048.0
FLAT: Final = (
    f"after the warm-up the slope is under {PERCENT_PER_HOUR:g} % of the plateau an hour (or {SPARE_KIB_PER_HOUR:g} KiB), "
    "or less than its own standard error doubled; files and threads end where they began, give or take 8"
)
_SPARE: Final = 8
_BEATS_SECONDS: Final = 3.0
"""Every worker has been heard by then: they beat each second."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one process. `seconds` since the beginning."""

    seconds: float
    usage: Usage


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(slope, its standard error) of a straight line through (x, y), by least squares."""
    count = len(points)
    if count < 3:
        return 0.0, float("inf")
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    found = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - found * (x - mean_x)) ** 2 for x, y in points)
    return found, (rest / (count - 2) / spread) ** 0.5


def judge_process(samples: Sequence[Sample], warm_seconds: float) -> dict[str, Any]:
    """Whether one process stayed as it was after the warm-up, and the figures."""
    kept = [one for one in samples if one.seconds >= warm_seconds]
    points = [(one.seconds / 3600, float(one.usage.rss_kib)) for one in kept]
    per_hour, error = slope(points)
    # What is bounded fills up and stops growing; what leaks goes on.
    late_per_hour, late_error = slope(points[len(points) // 2 :])
    plateau = sum(y for _, y in points) / max(1, len(points))
    allowed = max(plateau * PERCENT_PER_HOUR / 100, SPARE_KIB_PER_HOUR)
    early, late = kept[: max(1, len(kept) // 5)], kept[-max(1, len(kept) // 5) :]
    is_long = len(kept) > 1 and kept[-1].seconds - kept[0].seconds >= LONG_SECONDS
    grown = {
        name: max(getattr(one.usage, name) for one in late) - max(getattr(one.usage, name) for one in early)
        for name in ("files", "threads")
    }
    return {
        "plateau_kib": round(plateau),
        "slope_kib_per_hour": round(per_hour, 1),
        "standard_error_kib_per_hour": round(min(error, 1e9), 1),
        "percent_per_hour": round(100 * per_hour / plateau, 2) if plateau else 0.0,
        "late_slope_kib_per_hour": round(late_per_hour, 1),
        "late_standard_error_kib_per_hour": round(min(late_error, 1e9), 1),
        "files": late[-1].usage.files,
        "threads": late[-1].usage.threads,
        "is_slope_judged": is_long,
        "flat": (not is_long or per_hour <= allowed or per_hour <= 2 * error)
        and max(grown.values()) <= _SPARE,
        "samples": len(kept),
    }


def fill_memories(world: World) -> int:
    """Tell every worker of so many stopped runs that it remembers no more of them; returns how many workers were told.

    What is bounded is filled before memory is measured: it would grow for hours at the pace of this test, and hide a leak or
    look like one.
    """
    addresses = world.taps.addresses(_BEATS_SECONDS)
    properties = pika.BasicProperties(content_type=codec.CONTENT_TYPE, type=codec.CONTROL)
    for address in addresses:
        notices = [
            codec.encode(ControlNotice(kind=ControlKind.STOP, instance_id=uuid.uuid4().hex))
            for _ in range(MAX_REMEMBERED + MAX_REMEMBERED // 8)
        ]
        world.taps.publish_all([(DEFAULT_EXCHANGE, address, body, properties) for body in notices])
    return len(addresses)


def soak(options: Options, flap_seconds: float) -> dict[str, Any]:
    """Run, and return the result."""
    random = Random(f"{options.seed}/flaps")
    samples: dict[str, list[Sample]] = {}
    lines: list[Lines] = []
    cuts = 0
    warm_seconds = min(600.0, options.seconds / 4)
    with World(options) as world:
        told = fill_memories(world)
        began = time.monotonic()
        next_cut = began
        for number in itertools.count():
            elapsed = time.monotonic() - began
            if elapsed > options.seconds:
                break
            world.dispatcher.open_runs = world.count_runs().get("RUNNING", 0)
            for party in world.parties:
                samples.setdefault(party.name, []).append(Sample(elapsed, Usage.of(party.pid)))
            if number % LINES_EVERY == 0:
                lines.append(Lines.of(world))
                _show(elapsed, samples, cuts)
            while (left := began + (number + 1) * EVERY_SECONDS - time.monotonic()) > 0:
                if time.monotonic() >= next_cut:
                    name = random.choice(sorted(world.lines))
                    cuts += sum(proxy.cut(rst=random.random() < 0.7) for proxy in world.lines[name])
                    next_cut = time.monotonic() + random.uniform(0.5, 1.5) * flap_seconds
                time.sleep(min(left, 0.5))
        world.dispatcher.stop()
        runs = sum(world.count_runs().values())
        unexpected = list(world.supervisor.unexpected)
        incarnations = {party.name: party.incarnation for party in world.parties}
        world.wait_healthy(60.0)
        lines.append(Lines.of(world))
    processes = {name: judge_process(found, warm_seconds) for name, found in samples.items()}
    problems = unexpected + [
        f"{name} is not flat: {one}" for name, one in processes.items() if not one["flat"]
    ]
    workers = sum(name.startswith("worker") for name in processes)
    if told != workers:
        problems.append(f"{told} of {workers} workers were told what to remember")
    most = max(one.connections for one in lines[:3])
    if lines[-1].connections > most:
        problems.append(f"{lines[-1].connections} connections at the end, {most} in the beginning")
    return {
        "kind": "soak",
        "command": f"make soak MINUTES={options.seconds / 60:g}",
        "seed": options.seed,
        "minutes": options.seconds / 60,
        "warm_seconds": warm_seconds,
        "runs": runs,
        "cuts": cuts,
        "incarnations": incarnations,
        "connections": [one.connections for one in lines],
        "channels": [one.channels for one in lines],
        "processes": processes,
        "flat": FLAT,
        "problems": problems,
        "passed": not problems,
        "versions": verdict.versions(),
        "samples": {
            name: [
                (round(one.seconds, 1), one.usage.rss_kib, one.usage.files, one.usage.threads)
                for one in found
            ]
            for name, found in samples.items()
        },
    }


def _show(elapsed: float, samples: dict[str, list[Sample]], cuts: int) -> None:
    text = "  ".join(f"{name} {found[-1].usage.rss_kib // 1024} MiB" for name, found in samples.items())
    print(f"{elapsed:6.0f} s  {cuts} cuts  {text}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run, and return the exit code: 0 when all processes stayed flat."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--runs-per-second", type=float, default=5.0)
    parser.add_argument("--flap-seconds", type=float, default=4.0, help="pause between two cuts, on average")
    parser.add_argument("--build", type=Path, default=Path("build/soak"))
    given = parser.parse_args(arguments)
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    shutil.rmtree(given.build, ignore_errors=True)
    options = Options(
        seed,
        given.minutes * 60,
        "single",
        given.build,
        runs_per_second=given.runs_per_second,
        is_watched=False,
    )
    result = soak(options, given.flap_seconds)
    verdict.save(result, given.build / "result.json")
    for name, one in result["processes"].items():
        print(
            f"{name}: plateau {one['plateau_kib']} KiB, slope {one['slope_kib_per_hour']:+} "
            f"(± {one['standard_error_kib_per_hour']}) KiB/hour, {one['percent_per_hour']:+} %/hour, in the second half "
            f"{one['late_slope_kib_per_hour']:+} (± {one['late_standard_error_kib_per_hour']}) KiB/hour, "
            f"{one['files']} files, {one['threads']} threads: {'flat' if one['flat'] else 'NOT FLAT'}"
        )
    if not all(one["is_slope_judged"] for one in result["processes"].values()):
        print("too short to judge a slope: only files and threads were judged")
    for problem in result["problems"]:
        print(problem)
    print(
        f"SOAK {given.minutes:g} minutes, {result['runs']} runs, {result['cuts']} connections cut: "
        f"{'passed' if result['passed'] else 'FAILED'}"
    )
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
