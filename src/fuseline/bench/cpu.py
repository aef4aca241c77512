"""CPU time of processes with all of their children, those that ended included: from /proc, so on Linux alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

_PROC = Path("/proc")


def cpu_seconds(groups: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """By name: what these processes and their descendants have used so far. Empty where there is no /proc.

    Of two readings of the same processes only the difference means something.
    """
    if not (_PROC / "self" / "stat").exists():
        return {}
    parents, ticks = _all()
    per_second = os.sysconf("SC_CLK_TCK")
    return {
        name: sum(ticks.get(pid, 0) for pid in _with_children(pids, parents)) / per_second
        for name, pids in groups.items()
    }


def with_children(pids: Iterable[int]) -> set[int]:
    """These processes and their descendants, as they are now."""
    return _with_children(pids, _all()[0])


def _all() -> tuple[dict[int, int], dict[int, int]]:
    """Of each process its parent, and its ticks with those of its children that ended and were waited for."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            text = (folder / "stat").read_text()
        except OSError:  # it ended just now
            continue
        # Its name, in parentheses, may hold anything.
        fields = text.rpartition(")")[2].split()
        parents[int(folder.name)] = int(fields[1])
        ticks[int(folder.name)] = sum(int(one) for one in fields[11:15])
    return parents, ticks


def _with_children(pids: Iterable[int], parents: Mapping[int, int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return found


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What was used in between."""
    return {name: after[name] - before[name] for name in before if name in after}
