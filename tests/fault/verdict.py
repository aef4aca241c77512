"""What a run of the harness comes to: `result.json`, and an account for people when it failed."""

from __future__ import annotations

import json
import platform
import subprocess
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.fault.checker.facts import Facts
from tests.fault.checker.invariants import DOUBLES, HANGS, LOSSES, judge
from tests.fault.checker.outside import tally
from tests.fault.director import Injected
from tests.fault.history import read_lines
from tests.fault.options import Options

SHOWN = 8


def conclude(facts: Facts, injected: list[Injected], broken: list[str], options: Options) -> dict[str, Any]:
    """The result of one world, as JSON."""
    found = judge(facts)
    counts = tally(facts)
    problems = [f"{name}: {what}" for name, whats in found.items() for what in whats]
    problems += [f"the harness broke: {one}" for one in broken]
    is_vacuous = 2 * counts["acknowledged"] < counts["attempted"] or not counts["attempted"]
    if is_vacuous:
        problems.append(
            f"vacuous: {counts['acknowledged']} of {counts['attempted']} dispatches were acknowledged"
        )
    if options.fusion_hops and not counts["fused"]:
        problems.append("vacuous: step fusion was on, and no step was begun by it")
    bitten = [one for one in injected if one.bite is not None]
    if injected and 2 * len(bitten) < len(injected):
        problems.append(f"vacuous: {len(bitten)} of {len(injected)} faults were seen to bite")
    return {
        "seed": options.seed,
        "topology": options.topology,
        "fusion_hops": options.fusion_hops,
        "seconds": options.seconds,
        "within_seconds": options.within_seconds,
        "counts": counts,
        "invariants": {name: len(whats) for name, whats in found.items()},
        "faults": kinds(injected),
        "injected": len(injected),
        "bitten": len(bitten),
        "lost": sum(len(found[name]) for name in LOSSES),
        "double": sum(len(found[name]) for name in DOUBLES),
        "hung": sum(len(found[name]) for name in HANGS),
        "recoveries": recoveries(injected),
        "problems": problems,
        "passed": not problems,
        "versions": versions(),
    }


def kinds(injected: list[Injected]) -> dict[str, dict[str, Any]]:
    """By kind: how often, how often seen to bite, and one example of what was seen."""
    found: dict[str, dict[str, Any]] = {}
    for one in injected:
        kind = found.setdefault(one.kind, {"injected": 0, "bitten": 0, "seen": None})
        kind["injected"] += 1
        kind["bitten"] += one.bite is not None
        kind["seen"] = kind["seen"] or one.bite
    return found


def recoveries(injected: list[Injected]) -> dict[str, dict[str, list[float | None]]]:
    """By kind of fault and of progress: each recovery in seconds, None where there was none in time."""
    found: defaultdict[str, defaultdict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for one in injected:
        for what, seconds in one.recovery.items():
            found[one.kind][what].append(None if seconds is None else round(seconds, 3))
    return {kind: dict(by) for kind, by in found.items()}


def versions() -> dict[str, str]:
    """Of what was tested, without where it was."""
    return {
        "fuseline": version("fuseline"),
        "commit": commit(),
        "python": platform.python_version(),
        "pika": version("pika"),
        "psycopg": version("psycopg"),
        "system": f"{platform.system()} {platform.machine()}",
    }


def commit() -> str:
    """The commit that is checked out, with a `+` when files differ from it."""
    root = Path(__file__).parent
    head = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    )
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return (head.stdout.strip() or "unknown") + ("+" if dirty.stdout.strip() else "")


def line(result: dict[str, Any]) -> str:
    """The last line that a run prints."""
    return (
        f"SEED {result['seed']}: {result['injected']} faults of {len(result['faults'])} kinds "
        f"({result['bitten']} seen to bite), {result['counts']['acknowledged']} acknowledged, "
        f"{result['lost']} lost, {result['double']} double, {result['hung']} hung: "
        f"{'passed' if result['passed'] else 'FAILED'}"
    )


def account(facts: Facts, result: dict[str, Any], folder: Path) -> str:
    """What went wrong, readable: each problem, and for the runs that are named their rows, changes and logs."""
    lines = [f"FAILED: {len(result['problems'])} problems"]
    lines += [f"  {problem}" for problem in result["problems"][:40]]
    shown = [run for run in facts.run_rows if any(run in problem for problem in result["problems"])]
    for run in shown[:SHOWN]:
        lines += ["", f"run {run}: {facts.run_rows[run]}"]
        lines += [f"  {row}" for row in facts.step_rows[run].values()]
        lines += [
            f"  {change.at:.3f} {change.table} {change.name or ''} {_short(change.body)}"
            for change in facts.changes
            if change.run == run
        ]
        lines += [
            f"  {one['at']:.3f} {one['what']} {one['step']}/{one['attempt']} {one.get('outcome', '')} pid {one['pid']}"
            for one in facts.executions
            if one["run"] == run
        ]
        lines += _logged(folder, run)
        lines += _faults_near(folder, facts, run)
    return "\n".join(lines)


def _short(body: dict[str, Any]) -> str:
    wanted = ("status", "attempt", "losses", "failures", "holder", "open_steps", "due_at", "fired")
    return " ".join(f"{name}={body[name]}" for name in wanted if name in body)


def _logged(folder: Path, run: str) -> list[str]:
    found = []
    for path in sorted((folder / "logs").glob("*.log")):
        lines = path.read_text(errors="replace").splitlines()
        found += [f"  log {path.stem}: {text[:300]}" for text in lines if run in text]
    return found[:20]


def _faults_near(folder: Path, facts: Facts, run: str) -> list[str]:
    moments = [change.at for change in facts.changes if change.run == run]
    return [
        f"  fault near: {one['began_at']:.1f} to {one['ended_at']:.1f}: {one['kind']} of {one['target']}"
        for one in read_lines(folder / "history.jsonl")
        if one["what"] == "recovered" and moments and min(moments) - 15 < one["began_at"] < max(moments) + 15
    ]


def save(result: dict[str, Any], path: Path) -> None:
    """Write it."""
    path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
