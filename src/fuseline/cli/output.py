"""How answers look: tables and trees for people, JSON for programs. What is not the answer itself goes to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fuseline.model import RunStatus, Status

STYLES: Mapping[str, str] = {
    Status.PENDING: "dim",
    Status.QUEUED: "cyan",
    Status.RUNNING: "bold yellow",
    Status.SUCCEEDED: "green",
    Status.FAILED: "bold red",
    Status.CANCELLED: "magenta",
    Status.SKIPPED: "dim italic",
}
"""By state, of steps and runs alike."""

SIGNS: Mapping[str, str] = {
    Status.PENDING: "·",
    Status.QUEUED: "○",
    Status.RUNNING: "◐",
    Status.SUCCEEDED: "✓",
    Status.FAILED: "✗",
    Status.CANCELLED: "⊘",
    Status.SKIPPED: "↷",
}


def out() -> Console:
    """Where the answer goes. Made anew each time, since tests and pipes replace the stream."""
    return _console(stderr=False)


def err() -> Console:
    """Where everything else goes."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        # A pipe has no width. Cutting what a program reads would be a silent loss.
        console = Console(stderr=stderr, highlight=False, width=200, soft_wrap=True)
    return console


def print_json(value: Any) -> None:
    """`value` (models, lists, dicts) as JSON on stdout, never coloured or wrapped."""
    sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def plain(value: Any) -> Any:
    """Models as JSON data, also inside lists and dicts."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def print_pairs(pairs: Mapping[str, object]) -> None:
    """Names and values, one a line."""
    width = max(map(len, pairs), default=0)
    console = out()
    for name, value in pairs.items():
        console.print(Text(f"{name:<{width}}  ", style="dim") + Text(str(value)))


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Columns with a heading; those that begin with `>` are set to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        # As text: in a plain string rich would take `[size]` for markup and leave it out.
        made.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def state_text(state: Status | RunStatus) -> Text:
    """A state with its sign and colour."""
    return Text(f"{SIGNS.get(state.value, ' ')} {state.value}", style=STYLES.get(state.value, ""))


def duration(seconds: float | None) -> str:
    """`0.04 s`, `3.1 s`, `2 min 5 s`, `3 h 12 min`; empty for None."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"


def moment(timestamp: float | None) -> str:
    """Local date and time; empty for None."""
    return "" if timestamp is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(timestamp))


def short(text: str, width: int = 100) -> str:
    """One line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
