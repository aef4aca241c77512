"""What happened, in order, as the outside saw it; the checker reads nothing else. And the counts of faults that bit."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fuseline.engine.state import JoinRow, RunRow, StepRow
from fuseline.storage.base import Changes

if TYPE_CHECKING:
    from fuseline.testing.simulation.world import World

Event = tuple[Any, ...]
"""(time, kind, who, ...): what follows depends on the kind."""


class History:
    """One seed's events. Kinds that the checker reads:

    - `commit` who changes: rows that storage holds from now on
    - `start`/`end`/`stopped` worker (instance_id, step, attempt) ...: a body begins, ends with a report, is abandoned
    - `sent` who message_id: an assignment leaves a coordinator
    - `refuses`/`unroutable` who message_id: the server has not taken a message
    - `queued` who queue type message_id: the server has a message
    - `settled` who queue type message_id: a consumer acknowledged a message, and the server forgot it
    - `lost` queue type message_id why: a message is gone without anybody's word; `why` names the fault, or the rule
    - `acked` what instance_id detail: the dispatcher was told that a dispatch or a cancellation is done
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.events: list[Event] = []
        self.counts: Counter[str] = Counter()
        self.crashes: list[str] = []

    def add(self, kind: str, who: str, *details: Any) -> None:
        """Something happened now."""
        self.events.append((self._world.now, kind, who, *details))

    def add_each(
        self, kind: str, who: str, queue: str, messages: Sequence[tuple[str, str]], *details: Any
    ) -> None:
        """The same happened to each (type, message id)."""
        if len(messages) > 1:
            self.bit("several reports in one message")
        for message in messages:
            self.add(kind, who, queue, *message, *details)

    def fault(self, kind: str, who: str, detail: str = "") -> None:
        """A fault was injected."""
        self.counts[f"fault: {kind}"] += 1
        self.events.append((self._world.now, "fault", who, kind, detail))

    def bit(self, what: str) -> None:
        """Something that only faults bring about was seen."""
        self.counts[f"seen: {what}"] += 1

    def crashed(self, who: str, error: BaseException) -> None:
        """Real code raised what nobody catches: a defect by itself."""
        text = "".join(traceback.format_exception(error)[-4:])
        self.crashes.append(f"{who} crashed: {text}")
        self.add("crashed", who, f"{type(error).__name__}: {error}")

    def timeline(self, start: float) -> str:
        """All events as text, one a line."""
        lines = []
        for time, kind, who, *details in self.events:
            told = " ".join(_text(detail) for detail in details)
            lines.append(f"{time - start:10.4f}  {who:<14} {kind:<9} {told}")
        return "\n".join(lines)


def _text(detail: Any) -> str:
    if isinstance(detail, Changes):
        rows = [_run(run) for run in detail.runs]
        rows += [_step(i, step) for i, step in detail.steps]
        rows += [_join(i, join) for i, join in detail.joins]
        return "; ".join(rows)
    if isinstance(detail, tuple):
        return "/".join(str(part) for part in detail)
    return str(detail)


def _run(run: RunRow) -> str:
    failing = f" failing by {run.failed_step}" if run.is_failing else ""
    return f"{run.instance_id} {run.status.value} open={run.open_steps}{failing}"


def _step(instance_id: str, row: StepRow) -> str:
    holder = f" by {row.holder}" if row.holder else ""
    due = "" if row.due_at is None else f" due={row.due_at - 1_700_000_000:.3f}"
    counts = f" failures={row.failures} losses={row.losses}" if row.failures or row.losses else ""
    return f"{instance_id}/{row.name}/{row.attempt} {row.status.value}{holder}{due}{counts}"


def _join(instance_id: str, join: JoinRow) -> str:
    fired = " fired" if join.fired else ""
    return f"join {instance_id}/{join.name} left={join.unresolved} met={join.met}{fired}"
