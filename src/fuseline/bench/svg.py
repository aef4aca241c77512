"""Bars as SVG: small enough to be read as text, in colours that do on a light page and on a dark one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 720
_LEFT, _RIGHT, _TOP, _ROW, _BAR, _GAP = 190, 150, 40, 24, 16, 14
COLOURS: Final = {
    "floor": "#8a8f98",
    "fuseline": "#d9622b",
    "fuseline, fused": "#8f3d14",
    "fuseline-embedded": "#2b7fd9",
    "fuseline-local": "#3a9d5d",
}
_OTHER: Final = ["#7a5cc0", "#b0892f", "#3f9aa3", "#a04a6f"]


@dataclass(frozen=True, slots=True)
class Bar:
    """`low` and `high` are drawn as a whisker over the bar; `told` is the figure as text."""

    name: str
    value: float
    told: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Bars that are compared with each other, on a scale of their own."""

    title: str
    bars: Sequence[Bar]


def colour(name: str) -> str:
    """The same for the same name, in every plot."""
    return COLOURS.get(name) or _OTHER[sum(name.encode()) % len(_OTHER)]


def bars(title: str, groups: Sequence[Group]) -> str:
    """A plot of groups of horizontal bars."""
    rows: list[str] = []
    y = _TOP
    for group in groups:
        rows.append(_text(0, y + 12, group.title, bold=True))
        y += _ROW
        largest = max((max(bar.value, bar.high or 0) for bar in group.bars), default=0) or 1.0
        for bar in group.bars:
            rows += _bar(y, bar, largest)
            y += _ROW
        y += _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}"'
        f' font-family="sans-serif" font-size="12" fill="#808080" role="img" aria-label="{escape(title)}">'
    )
    return "\n".join([head, _text(0, 18, title, bold=True, size=15), *rows, "</svg>"]) + "\n"


def _bar(y: int, bar: Bar, largest: float) -> list[str]:
    room = WIDTH - _LEFT - _RIGHT
    length = max(1.0, room * bar.value / largest)
    parts = [
        _text(_LEFT - 10, y + 12, bar.name, end=True),
        f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2" fill="{colour(bar.name)}"/>',
    ]
    if bar.low is not None and bar.high is not None and bar.high > bar.low:
        low, high = (_LEFT + room * one / largest for one in (bar.low, bar.high))
        middle = y + _BAR / 2
        parts.append(
            f'<path d="M{low:.1f} {middle} H{high:.1f} M{low:.1f} {middle - 4} v8 M{high:.1f} {middle - 4} v8"'
            ' stroke="#202020" stroke-width="1.2" fill="none"/>'
        )
        length = max(length, high - _LEFT)
    parts.append(_text(_LEFT + length + 8, y + 12, bar.told))
    return parts


def _text(x: float, y: float, text: str, *, bold: bool = False, end: bool = False, size: int = 12) -> str:
    extra = (' font-weight="bold"' if bold else "") + (' text-anchor="end"' if end else "")
    if size != 12:
        extra += f' font-size="{size}"'
    return f'<text x="{x:g}" y="{y:g}"{extra}>{escape(text)}</text>'
