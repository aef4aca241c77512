"""Which dispatches were acknowledged to their callers, which commands about them are somebody's, who asked for an end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping

from fuseline.engine.state import StepRow
from fuseline.model.status import Status


class Dispatches:
    """A dispatch that is still somebody's answers for what starts its run: it comes again if he is killed.

    `to_cancel`: the runs whose cancellation was asked for, however that was answered.
    """

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()  # by run: one command may be there twice
        self._acknowledged: set[str] = set()
        self.to_cancel: set[str] = set()

    def queued(self, message_id: str) -> None:
        """RabbitMQ has a message."""
        if (i := _run_of(message_id)) is not None:
            self._open[i] += 1
        elif (i := _run_of(message_id, "cancel")) is not None:
            self.to_cancel.add(i)

    def settled(self, message_id: str) -> str | None:
        """Its receiver let it go; the run that it was about, if it was a dispatch."""
        if (i := _run_of(message_id)) is not None:
            self._open[i] -= 1
        return i

    def acknowledged(self, i: str) -> None:
        """The caller was told that the run is begun."""
        self._acknowledged.add(i)

    def must_be_out(self, i: str) -> bool:
        """Whether what starts this run must have been sent, for nothing else would bring it about."""
        return i in self._acknowledged and self._open[i] <= 0


def unsent(i: str, starts: Iterable[str], rows: Mapping[str, StepRow], sent: Container[str]) -> list[str]:
    """The steps that start a run, wait for a worker, and were not sent to any."""
    waiting = [row for name in starts if (row := rows.get(name)) is not None and row.status is Status.QUEUED]
    return [row.name for row in waiting if row.attempt == 1 and f"{i}/{row.name}/1" not in sent]


def _run_of(message_id: str, command: str = "dispatch") -> str | None:
    what, *rest = message_id.split("/")
    return rest[0] if what == command else None
