"""Cases for every storage: dead letters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuseline.engine.state import DeadLetter
from fuseline.model.messages import Cause, StepError
from fuseline.model.status import DeadLetterReason, DeadLetterState, RunStatus
from fuseline.storage.base import LetterQuery, RuntimeStorage, StoredLetter
from fuseline.storage.transaction import Changes, Wanted
from fuseline.testing.storage_cases import StorageCases, break_off, run_row


def letter(number: int, step: str = "s", attempt: int = 1) -> DeadLetter:
    """A dead letter that nobody has dealt with; a higher number died later."""
    error = StepError(type="Boom", message="na\u00efve \ud800 \0", cause=Cause.EXPIRED, types=["Boom"])
    return DeadLetter(f"{number:032x}", step, attempt, DeadLetterReason.EXPIRED, error, 100.25 + number)


class LetterCases(StorageCases):
    """Dead letters are saved with their run's rows, found by id, by run and by what they are, and purged with the run."""

    @pytest.fixture
    def letters(self, storage: RuntimeStorage) -> list[StoredLetter]:
        """Five, of three runs and two workflows."""
        runs = [
            run_row("i1", RunStatus.FAILED, replays=3),
            run_row("i2", RunStatus.FAILED),
            run_row("i3", RunStatus.FAILED, workflow_id="v", version="2"),
        ]
        poison = replace(letter(3, "t"), reason=DeadLetterReason.POISON)
        settled = replace(letter(5), state=DeadLetterState.REPLAYED, settled_at=7.5, next_attempt=2)
        found = [("i1", letter(1)), ("i1", letter(2, attempt=2)), ("i1", poison)]
        found += [("i2", letter(4)), ("i3", settled)]
        with storage.transaction() as tx:
            tx.save(Changes(runs=runs, letters=found, inputs={run.instance_id: {} for run in runs}))
        keys = {run.instance_id: (run.workflow_id, run.version) for run in runs}
        return [StoredLetter(i, *keys[i], one) for i, one in found]

    def test_every_field_of_a_letter_comes_back(
        self, storage: RuntimeStorage, letters: list[StoredLetter]
    ) -> None:
        """P4: by its id, and with all others of its run; so does how often the run was replayed."""
        for one in letters:
            assert storage.read_dead_letter(one.letter.letter_id) == one
        with storage.transaction() as tx:
            found = tx.load(Wanted(runs={"i1"}, letters={"i1", "i2", "unknown"}))
        assert found.runs["i1"].replays == 3
        assert found.letters == {
            i: {one.letter.key: one.letter for one in letters if one.instance_id == i} for i in ("i1", "i2")
        }

    def test_an_unknown_letter_is_missing(self, storage: RuntimeStorage, letters: list[StoredLetter]) -> None:
        assert storage.read_dead_letter("f" * 32) is None
        assert storage.list_dead_letters(LetterQuery(instance_id="unknown")) == []
        with storage.transaction() as tx:
            assert tx.load(Wanted(letters={"unknown"})).letters == {}

    @pytest.mark.parametrize(
        ("query", "numbers"),
        [
            (LetterQuery(), [5, 4, 3, 2, 1]),
            (LetterQuery(limit=2), [5, 4]),
            (LetterQuery(limit=2, before=f"{4:032x}"), [3, 2]),
            (LetterQuery(workflow_id="w"), [4, 3, 2, 1]),
            (LetterQuery(workflow_id="v", instance_id="i1"), []),
            (LetterQuery(instance_id="i1"), [3, 2, 1]),
            (LetterQuery(reason=DeadLetterReason.POISON), [3]),
            (LetterQuery(state=DeadLetterState.OPEN, reason=DeadLetterReason.EXPIRED), [4, 2, 1]),
            (LetterQuery("w", "i1", DeadLetterReason.EXPIRED, DeadLetterState.OPEN, 1, f"{2:032x}"), [1]),
        ],
    )
    def test_letters_are_listed_newest_first(
        self,
        storage: RuntimeStorage,
        letters: list[StoredLetter],
        query: LetterQuery,
        numbers: list[int],
    ) -> None:
        assert storage.list_dead_letters(query) == [letters[number - 1] for number in numbers]

    def test_a_letter_is_replaced_whole(self, storage: RuntimeStorage, letters: list[StoredLetter]) -> None:
        settled = replace(letter(1), state=DeadLetterState.DISCARDED, settled_at=9.5)
        with storage.transaction() as tx:
            tx.load(Wanted(runs={"i1"}))
            tx.save(Changes(letters=[("i1", settled)]))
        assert storage.read_dead_letter(settled.letter_id) == replace(letters[0], letter=settled)
        assert len(storage.list_dead_letters(LetterQuery())) == 5

    def test_an_exception_undoes_letters_too(
        self, storage: RuntimeStorage, letters: list[StoredLetter]
    ) -> None:
        """P3: with all else of its transaction, or not at all."""
        new = run_row("i9", RunStatus.FAILED)
        break_off(storage, lambda tx: tx.save(Changes(runs=[new], letters=[("i9", letter(9))])))
        assert storage.read_dead_letter(letter(9).letter_id) is None

    def test_a_purged_run_takes_its_letters_along(
        self, storage: RuntimeStorage, letters: list[StoredLetter]
    ) -> None:
        assert storage.purge_runs(1e9, 1) == 1
        gone = {i for i in ("i1", "i2", "i3") if storage.read_run_row(i) is None}
        left = [one for one in letters if one.instance_id not in gone]
        assert storage.list_dead_letters(LetterQuery()) == left[::-1]
        assert [storage.read_dead_letter(one.letter.letter_id) for one in left] == left
        while storage.purge_runs(1e9):
            pass
        assert storage.list_dead_letters(LetterQuery()) == []
        assert all(storage.read_dead_letter(one.letter.letter_id) is None for one in letters)
