"""The page of figures, `docs/performance.md`, and the plots beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from fuseline.bench import svg
from fuseline.bench.bars import Judged, Verdict, judge
from fuseline.bench.results import Cost, Result, costs_of, machine, results_of
from fuseline.bench.rounds import Measured
from fuseline.bench.works import WORKS, Metric

BEGIN: Final = "<!-- measured: begin -->"
END: Final = "<!-- measured: end -->"
UNITS: Final = {Metric.STEPS_PER_S: "steps/s", Metric.P50_MS_A_HOP: "ms a hop", Metric.SECONDS: "s"}


def figure(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def shown_name(system: str, fusion: bool) -> str:
    """What a system is called in tables and plots."""
    return f"{system}, fused" if fusion else system


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def results_table(results: Sequence[Result]) -> str:
    """Every figure with its spread."""
    rows = [
        [
            one.work,
            shown_name(one.system, one.fusion),
            f"{figure(one.median)} {UNITS[one.metric]}",
            f"{figure(one.min)} to {figure(one.max)}",
            str(one.rounds),
        ]
        for one in results
    ]
    return table(["work", "system", "median", "range", "rounds"], rows)


def bars_table(judged: Sequence[Judged]) -> str:
    """What must be reached."""
    rows = []
    for one in judged:
        bar = one.bar
        unit = UNITS[bar.metric]
        found = "" if one.found is None else f"{figure(one.found)} {unit}"
        floor = "" if one.floor is None or not bar.of_floor else f"{figure(one.floor)} {unit}"
        ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
        verdict = f"**{one.verdict}**" if one.verdict is Verdict.MISSED else str(one.verdict)
        rows.append([bar.work, shown_name(bar.system, bar.fusion), floor, found, ratio, str(bar), verdict])
    return table(["work", "system", "floor", "found", "ratio", "must be", ""], rows)


def costs_table(costs: Sequence[Cost]) -> str:
    """CPU time of a step by process."""
    who = list(dict.fromkeys(name for one in costs for name in one.cpu_ms_per_step))
    rows = [
        [
            one.work,
            shown_name(one.system, one.fusion),
            *(f"{one.cpu_ms_per_step[name]:.3f}" if name in one.cpu_ms_per_step else "" for name in who),
        ]
        for one in costs
    ]
    return table(["work", "system", *who], rows)


def counts_table(costs: Sequence[Cost]) -> str:
    """Messages and statements of a step."""
    what = list(dict.fromkeys(name for one in costs for name in one.counts_per_step))
    rows = [
        [
            one.work,
            shown_name(one.system, one.fusion),
            *(f"{one.counts_per_step[name]:.2f}" if name in one.counts_per_step else "" for name in what),
        ]
        for one in costs
        if one.counts_per_step
    ]
    return table(["work", "system", *(name.replace("_", " ") for name in what)], rows)


def plots(results: Sequence[Result], costs: Sequence[Cost]) -> dict[str, str]:
    """SVG texts by file name."""
    groups: dict[tuple[str, Metric], list[Result]] = {}
    for one in results:
        groups.setdefault((one.work, one.metric), []).append(one)
    made = {}
    for name, title, metrics in (
        ("throughput.svg", "Steps a second (more is better)", {Metric.STEPS_PER_S}),
        (
            "latency.svg",
            "Time of a hop, and of a wide run (less is better)",
            {Metric.P50_MS_A_HOP, Metric.SECONDS},
        ),
    ):
        chosen = [
            svg.Group(
                f"{work}: {WORKS[work].title}",
                [
                    svg.Bar(
                        shown_name(one.system, one.fusion),
                        one.median,
                        f"{figure(one.median)} {UNITS[metric]}",
                        one.min,
                        one.max,
                    )
                    for one in found
                ],
            )
            for (work, metric), found in groups.items()
            # Of works that have a rate their seconds say the same again.
            if metric in metrics and not (metric is Metric.SECONDS and (work, Metric.STEPS_PER_S) in groups)
        ]
        if chosen:
            made[name] = svg.bars(title, chosen)
    cpu = [
        svg.Group(
            f"{one.work}, {shown_name(one.system, one.fusion)}",
            [svg.Bar(who, value, f"{value:.3f} ms") for who, value in one.cpu_ms_per_step.items()],
        )
        for one in costs
        if one.work == "W1" and len(one.cpu_ms_per_step) > 1
    ]
    if cpu:
        made["cpu.svg"] = svg.bars("CPU time of a step by process, W1", cpu)
    return made


def measured_part(measured: Sequence[Measured], scale: float, folder: str) -> str:
    """What stands between the marks: tables, and plots that lie in `folder`."""
    results, costs = results_of(measured), costs_of(measured)
    about = machine()
    told = [f"{about['cpus']} CPUs, {about['system']}, Python {about['python']}."]
    if scale != 1:
        told.append(f"**Works made smaller by {scale:g}: not to be compared with whole ones.**")
    parts = [" ".join(told), "## What must be reached", bars_table(judge(results))]
    pictures = plots(results, costs)
    titles = {"throughput.svg": "Throughput", "latency.svg": "Latency", "cpu.svg": "CPU time"}
    for name in pictures:
        parts += [f"## {titles[name]}", f"![{titles[name]}]({folder}/{name})"]
    parts += [
        "## Every figure",
        results_table(results),
        "## CPU milliseconds of a step",
        costs_table(costs),
        "## Messages and statements of a step",
        counts_table(costs),
    ]
    return "\n\n".join(parts)


def write(page: Path, measured: Sequence[Measured], scale: float) -> None:
    """Write what was measured into the page, between its marks, and the plots into the folder of its name."""
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in plots(results_of(measured), costs_of(measured)).items():
        (folder / name).write_text(text)
    before, after = "# Performance\n", ""
    if page.exists() and BEGIN in page.read_text():
        text = page.read_text()
        before, _, rest = text.partition(BEGIN)
        after = rest.partition(END)[2].lstrip("\n")
    body = measured_part(measured, scale, folder.name)
    page.write_text(f"{before.rstrip()}\n\n{BEGIN}\n\n{body}\n\n{END}\n" + (f"\n{after}" if after else ""))
