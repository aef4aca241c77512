"""One broken item harms no other, and no coordinator: whatever a report says, it fails its step or is parked (P1, P7)."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from fuseline.coordinator.pipeline import FEW, Item, Pipeline
from fuseline.coordinator.workers import WorkerBook
from fuseline.engine import Verdict
from fuseline.engine.effects import StopHolder
from fuseline.engine.events import StepClaimed, StepReleased, StepReported
from fuseline.errors import CallerError, StorageUnavailableError
from fuseline.ledger import Dispatch, Occurrence, Outcome
from fuseline.model import RunStatus, Status, WorkflowSchema
from fuseline.storage.base import Changes, Transaction
from fuseline.testing.flows import graph
from tests.unit.coordinator.outboxes import outbox_with
from tests.unit.ledgers import Leaving, Watched, ledger_over, ledger_with

ONE = WorkflowSchema(workflow_id="g", version="1", steps={"a": {"name": "a"}})


def refuse_nul(storage: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """As PostgreSQL does: no text with a NUL, whichever column it is for."""
    begin = storage.transaction

    def transaction() -> Any:
        return _Refusing(begin())

    monkeypatch.setattr(storage, "transaction", transaction)


class _Refusing:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __enter__(self) -> Transaction:
        tx: Transaction = self._inner.__enter__()
        save = tx.save

        def checked(changes: Changes) -> None:
            for _, row in changes.steps:
                if "\0" in f"{row.holder}{row.action}":
                    raise CallerError("what PostgreSQL cannot hold")
            save(changes)

        tx.save = checked  # type: ignore[method-assign]
        return tx

    def __exit__(self, *failure: object) -> Any:
        return self._inner.__exit__(*failure)


def report(instance_id: str, **said: Any) -> Item:
    return Item(Occurrence(instance_id, StepReported("a", 1, Status.SUCCEEDED, **said), "g"))


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    ledger, storage, clock = ledger_with(ONE)
    ledger.apply([Dispatch("g", "1", one) for one in ("good", "bad")])
    refuse_nul(storage, monkeypatch)
    return Pipeline(
        ledger,
        outbox_with(),
        WorkerBook(clock, 60.0),
    )


@pytest.mark.parametrize("result", [None, 1])
def test_an_action_that_cannot_be_stored_fails_its_step_alone(pipeline: Pipeline, result: Any) -> None:
    good, bad = pipeline.apply([report("good", result=result), report("bad", result=result, action="x\0")])
    assert (good.verdict, good.error) == (Verdict.ACCEPTED, None)
    assert (bad.verdict, bad.error) == (Verdict.ACCEPTED, None)
    assert bad.finished == "FAILED"


@pytest.mark.parametrize("result", [None, 1])
def test_a_holder_that_cannot_be_stored_is_refused_alone(pipeline: Pipeline, result: Any) -> None:
    good, bad = pipeline.apply([report("good", result=result), report("bad", result=result, holder="w\0")])
    assert good.finished == "SUCCEEDED"
    assert isinstance(bad.error, CallerError)


def break_after_the_commit(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[list[bool]]:
    """Of the first batch; whether each item of a batch was said to come again."""
    ledger = pipeline._ledger
    apply = ledger.apply
    seen: list[list[bool]] = []

    def commit_and_break(items: Any, **how: Any) -> Any:
        seen.append([item.event.redelivered for item in items])
        outcomes = apply(items, **how)
        if len(seen) == 1:
            ledger.doubts += 1
            raise ZeroDivisionError
        return outcomes

    monkeypatch.setattr(ledger, "apply", commit_and_break)
    return seen


def test_what_may_be_committed_is_applied_once_more_as_what_comes_again(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4: else what the commit has queued is left to the sweep, and its cause acknowledged."""
    seen = break_after_the_commit(pipeline, monkeypatch)
    outcomes = pipeline.apply([report("good"), report("bad")])
    assert seen == [[False, False], [True, True]]
    assert [one.verdict for one in outcomes] == [Verdict.DUPLICATE] * 2


def test_who_took_a_step_by_a_lone_report_that_may_be_committed_keeps_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P5: it was taken for a broken one, and its worker told to stop what he rightfully holds."""
    ledger, storage, clock = ledger_with(graph("g", {"a": ["b"]}))
    ledger.apply([Dispatch("g", "1", "run")])
    pipeline = Pipeline(
        ledger,
        outbox_with(),
        WorkerBook(clock, 60.0),
    )
    break_after_the_commit(pipeline, monkeypatch)
    (outcome,) = pipeline.apply([report("run", holder="w", continues_with="b")])
    assert (outcome.verdict, outcome.stop_holders) == (Verdict.DUPLICATE, [])
    run = storage.read_run("run")
    assert run is not None
    assert (run.steps["b"].status, run.steps["b"].holder) == (Status.RUNNING, "w")


def test_what_a_worker_gave_back_goes_out_although_the_batch_broke_after_its_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger, _storage, clock = ledger_with(graph("g", {"a": []}))
    pipeline = Pipeline(
        ledger,
        outbox_with(),
        WorkerBook(clock, 60.0),
    )
    released = []
    for i in ("one", "two"):
        ledger.apply([Dispatch("g", "1", i)])
        ledger.apply([Occurrence(i, StepClaimed("a", 1, "w"), "g")])
        released.append(Item(Occurrence(i, StepReleased("a", 1, "w"), "g")))
    break_after_the_commit(pipeline, monkeypatch)
    outcomes = pipeline.apply(released)
    assert [[one.attempt for one in outcome.assignments] for outcome in outcomes] == [[2], [2]]


def test_who_goes_on_from_what_cannot_be_stored_is_told_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: the step failed, so what its worker went on with is nobody's."""
    ledger, storage, clock = ledger_with(graph("g", {"a": ["b"]}))
    ledger.apply([Dispatch("g", "1", "bad")])
    refuse_nul(storage, monkeypatch)
    pipeline = Pipeline(
        ledger,
        outbox_with(),
        WorkerBook(clock, 60.0),
    )
    (bad,) = pipeline.apply([report("bad", action="x\0", holder="w", continues_with="b")])
    assert bad.finished == "FAILED"
    assert bad.stop_holders == [StopHolder("b", 1, "w", ("a", 1))]


def test_what_is_due_after_a_step_that_cannot_be_sent_is_looked_at() -> None:
    """P1: no report comes of it, after which somebody would look."""
    ledger, storage, clock = ledger_with(ONE)
    outbox: Any = SimpleNamespace(
        flush=lambda: None, refusals=SimpleNamespace(), events=lambda _outcome: None, notify=lambda *_: None
    )
    pipeline = Pipeline(ledger, outbox, WorkerBook(clock, 60.0))
    seen: list[RunStatus] = []
    pipeline.on_failed = lambda: seen.extend(row.status for row in storage.list_runs())
    (outcome,) = ledger.apply([Dispatch("g", "1", "r")])
    outbox.refusals.on_refused(outcome.assignments[0], CallerError("larger than RabbitMQ allows"), False)
    assert seen == [RunStatus.FAILED]


class Left:
    """A pipeline over a storage that is left to commit, and what it says of each batch, by its first run."""

    def __init__(self, *runs: str, few: int = 0) -> None:
        ledger, self.storage, clock = ledger_over(Leaving(), ONE)
        ledger.apply([Dispatch("g", "1", i) for i in runs])
        self.ledger = ledger
        self.storage.ended.clear()
        self.pipeline = Pipeline(
            ledger,
            outbox_with(),
            WorkerBook(clock, 60.0),
            few,
        )
        self.told: list[tuple[str, Any]] = []

    def begin(self, *runs: str, **said: Any) -> None:
        def done(outcomes: Sequence[Outcome]) -> None:
            self.told.append((runs[0], [one.verdict for one in outcomes]))

        def lost(error: StorageUnavailableError) -> None:
            self.told.append((runs[0], str(error)))

        self.pipeline.begin([report(i, **said) for i in runs], done, lost)


def test_a_batch_is_begun_before_the_one_before_it_is_waited_for() -> None:
    left = Left("a", "b", "c")
    left.begin("a")
    assert (left.told, left.storage.ended) == ([], [])
    left.begin("b")
    assert (left.told, left.storage.transactions) == ([("a", [Verdict.ACCEPTED])], 3)
    left.pipeline.finish()
    assert left.told[1:] == [("b", [Verdict.ACCEPTED])]
    assert (left.pipeline.is_under_way, left.ledger.doubts) == (False, 0)


def test_the_commit_of_a_few_is_waited_for_at_once() -> None:
    """Most come alone, and somebody waits for what they make ready."""
    left = Left("a", "b", "c", few=2)
    left.begin("a", "b")
    assert left.told == [("a", [Verdict.ACCEPTED] * 2)]
    assert not left.pipeline.is_under_way


def test_what_comes_next_of_a_run_waits_until_what_came_before_is_recorded() -> None:
    """P3, P4: it is decided on by what is recorded, and the first one may be lost still."""
    left = Left("a", "b")
    left.storage.at_end = [StorageUnavailableError("cut off")]
    left.begin("a")
    left.begin("b", result=1)
    left.begin("b", result=2)
    left.pipeline.finish()
    assert left.told == [("a", "cut off"), ("b", [Verdict.ACCEPTED]), ("b", [Verdict.DUPLICATE])]
    assert left.storage.ended == [["a"], ["b"], []]


@pytest.mark.parametrize("at_once", [True, False], ids=["applied", "begun"])
def test_what_comes_next_of_a_run_is_not_decided_on_while_what_came_before_may_be_lost(at_once: bool) -> None:
    """P3, P5: a step was given back before it was claimed, and so held by a worker that was gone."""
    left = Left("a", "b")
    left.storage.at_end = [StorageUnavailableError("cut off")]
    left.begin("a", "b")
    with pytest.raises(StorageUnavailableError, match="came before"):
        left.pipeline.apply([report("b")]) if at_once else left.begin("b")
    assert left.told == [("a", "cut off")]
    assert left.storage.transactions == 1 + 1
    assert left.pipeline.apply([report("b")])  # once more, when storage is back


def test_whoever_applies_something_finds_what_is_under_way_recorded_and_told() -> None:
    left = Left("a", "b")
    left.begin("a")
    (outcome,) = left.pipeline.apply([report("a")])
    assert (outcome.verdict, left.told) == (Verdict.DUPLICATE, [("a", [Verdict.ACCEPTED])])


def test_a_batch_that_cannot_be_begun_leaves_the_one_before_it_as_it_is() -> None:
    """P4: what that one has recorded goes out."""
    left = Left("a", "b")
    left.begin("a")
    left.storage.is_full = True
    with pytest.raises(StorageUnavailableError, match="full"):
        left.begin("b")
    assert left.told == [("a", [Verdict.ACCEPTED])]
    assert not left.pipeline.is_under_way


def test_what_the_commit_refuses_is_taken_one_by_one() -> None:
    """P7: nothing of it was recorded, and so nothing of it is said to come again."""
    left = Left("a", "b")
    left.storage.at_end = [CallerError("a text that PostgreSQL cannot hold")]
    left.begin("a", "b")
    left.pipeline.finish()
    assert left.told == [("a", [Verdict.ACCEPTED, Verdict.ACCEPTED])]
    assert left.storage.ended == [["a"], ["b"]]
    assert left.ledger.doubts == 0


def test_what_breaks_as_it_is_committed_is_applied_once_more_as_what_comes_again() -> None:
    """P4: it may be recorded, and then what it had queued is still to go out."""
    left = Left("a", "b")
    left.storage.at_end = [ZeroDivisionError()]
    left.begin("a", "b")
    left.pipeline.finish()
    assert left.told == [("a", [Verdict.DUPLICATE, Verdict.DUPLICATE])]


def test_where_storage_commits_at_the_end_a_batch_is_done_at_once() -> None:
    ledger, storage, clock = ledger_with(ONE)
    ledger.apply([Dispatch("g", "1", "a")])
    pipeline = Pipeline(
        ledger,
        outbox_with(),
        WorkerBook(clock, 60.0),
        few=0,
    )
    told: list[Outcome] = []
    pipeline.begin([report("a")], told.extend, told.append)  # type: ignore[arg-type]
    run = storage.read_run_row("a")
    assert run is not None
    assert run.status is RunStatus.SUCCEEDED
    assert [one.verdict for one in told] == [Verdict.ACCEPTED]
    assert not pipeline.is_under_way


@pytest.mark.parametrize("count", [1, FEW, FEW + 1])
def test_what_few_reports_make_ready_leaves_before_anybody_is_told(count: int) -> None:
    """A lone step waits for its assignment; of a large batch each item is carried out by itself."""
    ledger, _, clock = ledger_with(graph("g", {"a": ["b"]}))
    done: list[str] = []
    outbox = outbox_with(
        assign=lambda outcome, _assignment, _done: done.append(f"assign {outcome.instance_id}"),
        flush=lambda: done.append("flush"),
        events=lambda outcome: done.append(f"tell {outcome.instance_id}"),
    )
    pipeline = Pipeline(ledger, outbox, WorkerBook(clock, 60.0))
    ids = [f"{n:02}" for n in range(count)]
    ledger.apply([Dispatch("g", "1", i) for i in ids])
    pipeline.run([report(i) for i in ids], [None] * count)
    if count <= FEW:
        assert done == [*(f"assign {i}" for i in ids), "flush", *(f"tell {i}" for i in ids)]
    else:
        assert done == [f"{what} {i}" for i in ids for what in ("assign", "tell")]
