"""The results of several worlds as one."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

_SUMS = ("injected", "bitten", "lost", "double", "hung", "took_seconds")


def merge(results: list[dict[str, Any]], command: str) -> dict[str, Any]:
    """One result: sums, and everything that was found."""
    first = results[0]
    counts: Counter[str] = Counter()
    invariants: Counter[str] = Counter()
    faults: dict[str, dict[str, Any]] = {}
    recoveries: defaultdict[str, defaultdict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        counts.update(result["counts"])
        invariants.update(result["invariants"])
        for kind, found in result["faults"].items():
            one = faults.setdefault(kind, {"injected": 0, "bitten": 0, "seen": None})
            one["injected"] += found["injected"]
            one["bitten"] += found["bitten"]
            one["seen"] = one["seen"] or found["seen"]
        for kind, by in result["recoveries"].items():
            for what, seconds in by.items():
                recoveries[kind][what] += seconds
    return {
        "seed": first["seed"],
        "fusion_hops": first["fusion_hops"],
        "command": command,
        "began_at": first["began_at"],
        "within_seconds": first["within_seconds"],
        "versions": first["versions"],
        "topologies": {result["topology"]: result["seconds"] for result in results},
        "counts": dict(counts),
        "invariants": {name: invariants[name] for name in first["invariants"]},
        "faults": faults,
        "recoveries": {kind: dict(by) for kind, by in recoveries.items()},
        "problems": [f"{result['topology']}: {one}" for result in results for one in result["problems"]],
        "passed": all(result["passed"] for result in results),
        **{name: sum(result[name] for result in results) for name in _SUMS},
    }
