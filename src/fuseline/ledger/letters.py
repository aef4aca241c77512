"""Dead letters by their ids: what is asked of them, as views and as events for the ledger."""

from __future__ import annotations

import re
from typing import Final

from fuseline.engine.effects import Verdict
from fuseline.engine.events import DeadLetterDiscarded, StepReplayed
from fuseline.errors import NotReplayableError, UnknownDeadLetterError
from fuseline.ledger.book import Ledger
from fuseline.ledger.items import Occurrence, Outcome
from fuseline.model.views import DeadLetterDetail, DeadLetterView, ReplayView
from fuseline.storage.base import LetterQuery, StoredLetter
from fuseline.storage.views import letter_view

_ID: Final = re.compile(r"[0-9a-f]{32}")


class DeadLetters:
    """The dead letters of a ledger's storage. Whoever replays one applies the occurrence, and asks what that did."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def list(self, query: LetterQuery) -> list[DeadLetterView]:
        """Those that fit, the latest first."""
        return [letter_view(stored) for stored in self._ledger.storage.list_dead_letters(query)]

    def get(self, letter_id: str) -> DeadLetterDetail:
        """One with its message. Raises `UnknownDeadLetterError`."""
        stored = self._read(letter_id)
        letter = stored.letter
        message = self._ledger.rebuild(stored.instance_id, letter.step, letter.attempt)
        return DeadLetterDetail(**letter_view(stored).model_dump(), message=message)

    def replay(self, letter_id: str, *, redelivered: bool = False) -> Occurrence:
        """To be applied. Raises `UnknownDeadLetterError`."""
        stored = self._read(letter_id)
        event = StepReplayed(stored.letter.step, stored.letter.attempt, redelivered)
        return Occurrence(stored.instance_id, event)

    def discard(self, letter_id: str) -> Occurrence:
        """To be applied. Raises `UnknownDeadLetterError`."""
        stored = self._read(letter_id)
        return Occurrence(stored.instance_id, DeadLetterDiscarded(stored.letter.step, stored.letter.attempt))

    def replayed(self, letter_id: str, outcome: Outcome) -> ReplayView:
        """What a replay did. Raises `NotReplayableError` which says why it did nothing, `UnknownDeadLetterError`."""
        view = self.settled(letter_id, outcome)
        told = next((notice.detail for notice in outcome.notices if notice.kind == "run_replayed"), {})
        return ReplayView(
            **view.model_dump(),
            took_effect=outcome.verdict is Verdict.ACCEPTED,
            steps=list(told.get("steps", [])),
        )

    def settled(self, letter_id: str, outcome: Outcome) -> DeadLetterView:
        """The dead letter after an outcome. Raises as `replayed` does."""
        if outcome.error is not None:
            raise outcome.error
        if outcome.verdict is Verdict.UNKNOWN:
            raise UnknownDeadLetterError(f"no dead letter {letter_id!r} is known")
        if outcome.verdict is Verdict.STALE:
            raise NotReplayableError(f"dead letter {letter_id}: {outcome.reason}")
        return letter_view(self._read(letter_id))

    def _read(self, letter_id: str) -> StoredLetter:
        # What is no id is not asked for: a database may refuse it (a NUL), and for no reason that passes.
        stored = self._ledger.storage.read_dead_letter(letter_id) if _ID.fullmatch(letter_id) else None
        if stored is None:
            raise UnknownDeadLetterError(f"no dead letter {letter_id!r} is known")
        return stored
