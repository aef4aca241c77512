"""Several coordinators, of whom one decides on what it remembers: it is right, or it reads again (P3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager

import psycopg
import pytest

from fuseline.clock import ManualClock
from fuseline.engine import Verdict
from fuseline.engine.events import (
    CancelRequested,
    Event,
    StepClaimed,
    StepDuePassed,
    StepReleased,
    StepReplayed,
    StepReported,
)
from fuseline.errors import CallerError, StorageUnavailableError
from fuseline.ledger import Dispatch, Ledger, Occurrence, Outcome
from fuseline.model import RunStatus, Status
from fuseline.model.schema import PolicySpec
from fuseline.model.views import WorkerView
from fuseline.storage import PostgresRuntimeStorage
from fuseline.storage.base import Changes, StoredRun, Transaction, Wanted
from fuseline.storage.recollection import PAUSE
from fuseline.testing.flows import graph
from tests.unit.storage.waiting import until_it_waits

CHAIN = graph(
    "chain",
    {"a": ["b"], "b": ["c"]},
    policies={name: [PolicySpec(name="retry", config={"max_retries": 2})] for name in "abc"},
)
FAN = graph("fan", {"a": ["b", "c"]})
SECONDS = 30.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def mine(fresh_postgres_url: str, clock: ManualClock) -> Iterator[Ledger]:
    """Of the coordinator that remembers."""
    storage = PostgresRuntimeStorage(fresh_postgres_url, upgrade=True)
    ledger = Ledger(storage, clock)
    ledger.register([CHAIN, FAN])
    yield ledger
    storage.close()


@pytest.fixture
def other(mine: Ledger, fresh_postgres_url: str, clock: ManualClock) -> Iterator[Ledger]:
    """Of another one on the same database."""
    storage = PostgresRuntimeStorage(fresh_postgres_url)
    yield Ledger(storage, clock)
    storage.close()


def apply(ledger: Ledger, i: str, *events: Event) -> list[Outcome]:
    return ledger.apply([Occurrence(i, event, "chain") for event in events])


def done(step: str, holder: str = "w", attempt: int = 1, **given: object) -> StepReported:
    return StepReported(step, attempt, Status.SUCCEEDED, result={"of": step}, holder=holder, **given)  # type: ignore[arg-type]


def begin(ledger: Ledger, i: str, workflow_id: str = "chain") -> None:
    ledger.apply([Dispatch(workflow_id, "1", i, {"x": 1})])


def cost(ledger: Ledger, do: Callable[[], object]) -> int:
    """Statements that it takes."""
    storage = ledger.storage
    assert isinstance(storage, PostgresRuntimeStorage)
    before = storage.statements
    do()
    return storage.statements - before


def stored(ledger: Ledger, i: str) -> StoredRun:
    found = ledger.storage.read_run(i)
    assert found is not None
    found.run.instance_id = "same"
    return found


def test_each_lone_report_of_a_run_of_ones_own_is_one_statement(mine: Ledger) -> None:
    begin(mine, "i")
    for step, following in (("a", ["b"]), ("b", ["c"]), ("c", [])):
        before = mine.storage.statements  # type: ignore[attr-defined]
        (outcome,) = apply(mine, "i", done(step))
        assert mine.storage.statements == before + 1  # type: ignore[attr-defined]
        assert outcome.verdict is Verdict.ACCEPTED
        assert [one.step_name for one in outcome.assignments] == following
    found = stored(mine, "i")
    assert found.run.status is RunStatus.SUCCEEDED
    assert {name: row.result for name, row in found.steps.items()} == {n: {"of": n} for n in "abc"}


def test_what_is_recorded_is_what_a_transaction_records(
    mine: Ledger, other: Ledger, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims, leases, retries, fused steps: with and without memory."""
    monkeypatch.setattr(other, "_apply_recalled", lambda _items: None)
    story: list[list[Event]] = [
        [StepClaimed("a", 1, "w")],
        [StepClaimed("a", 1, "w", lease_seconds=900.0)],
        [done("a", continues_with="b")],
        [StepReleased("b", 1, "w")],
        [StepReported("b", 2, Status.FAILED, holder="v")],
        [StepClaimed("b", 3, "w")],
        [done("b", attempt=3, continues_with="c"), done("c", continued_from=("b", 3))],
    ]
    for ledger, i in ((mine, "i"), (other, "j")):
        begin(ledger, i)
    for events in story:
        clock.advance(1.0)
        told = [
            [(one.verdict, [a.step_name for a in one.assignments]) for one in apply(ledger, i, *events)]
            for ledger, i in ((mine, "i"), (other, "j"))
        ]
        assert told[0] == told[1]
        assert stored(mine, "i") == stored(mine, "j")
    assert stored(mine, "i").run.status is RunStatus.SUCCEEDED


INTERFERENCES: dict[str, tuple[list[Event], Verdict]] = {
    "claimed": ([StepClaimed("a", 1, "v")], Verdict.STALE),
    "claimed by the same": ([StepClaimed("a", 1, "w")], Verdict.ACCEPTED),
    "reported": ([done("a")], Verdict.DUPLICATE),
    "reported by another": ([done("a", "v")], Verdict.STALE),
    "failed": ([StepReported("a", 1, Status.FAILED)], Verdict.STALE),
    "given back": ([StepClaimed("a", 1, "v"), StepReleased("a", 1, "v")], Verdict.STALE),
    "cancelled": ([CancelRequested()], Verdict.STALE),
    "ended": ([done("a"), done("b"), done("c")], Verdict.DUPLICATE),
    "replayed": (
        [
            StepReported("a", 1, Status.FAILED),
            StepReported("a", 2, Status.FAILED),
            StepReplayed("a", 2),
        ],
        Verdict.STALE,
    ),
}


@pytest.mark.parametrize("name", INTERFERENCES)
def test_what_others_have_changed_meanwhile_is_seen(
    mine: Ledger, other: Ledger, clock: ManualClock, name: str
) -> None:
    """P3, P5: the report meets the verdict that it meets without memory."""
    events, verdict = INTERFERENCES[name]
    clock.advance(1.0)
    begin(mine, "i")
    for event in events:
        clock.advance(1.0)
        apply(other, "i", event)
    before = stored(other, "i")
    (outcome,) = apply(mine, "i", done("a", continues_with="b"))
    assert outcome.verdict is verdict, outcome.reason
    if verdict is not Verdict.ACCEPTED:
        assert stored(other, "i") == before


def test_a_lease_that_was_carried_on_by_others_is_seen(
    mine: Ledger, other: Ledger, clock: ManualClock
) -> None:
    begin(mine, "i")
    apply(mine, "i", StepClaimed("a", 1, "w"))
    due = stored(mine, "i").steps["a"].due_at
    assert due is not None
    clock.advance(due - clock.now() + 1.0)
    apply(other, "i", StepDuePassed("a", clock.now() + 500.0))
    renewed = stored(mine, "i")
    assert cost(mine, lambda: apply(mine, "i", StepDuePassed("a"))) > 1
    assert stored(mine, "i") == renewed


def test_a_run_that_changes_with_its_step_changes_with_both_or_with_neither(
    mine: Ledger, other: Ledger
) -> None:
    """P3: the header is as it was remembered, the step is not. The last report ends the run only if it counts."""
    begin(mine, "i")
    apply(mine, "i", done("a"))
    apply(mine, "i", done("b"))
    apply(other, "i", StepClaimed("c", 1, "v"))
    before = stored(other, "i")
    (outcome,) = apply(mine, "i", done("c"))
    assert outcome.verdict is Verdict.STALE
    assert stored(other, "i") == before
    assert before.run.status is RunStatus.RUNNING


def test_two_steps_of_one_run_are_not_told_from_memory_alone(mine: Ledger, other: Ledger) -> None:
    """What a second report meets is not proved by the first one's step."""
    begin(mine, "i", "fan")
    mine.apply([Occurrence("i", done("a"))])
    other.apply([Occurrence("i", StepClaimed("c", 1, "v"))])
    reports = [Occurrence("i", done("b")), Occurrence("i", done("c"))]
    assert [one.verdict for one in mine.apply(reports)] == [Verdict.ACCEPTED, Verdict.STALE]


def test_after_a_miss_it_reads_for_a_while(mine: Ledger, other: Ledger) -> None:
    """Where coordinators take turns, half of what each remembers is out of date."""
    begin(mine, "i")
    apply(other, "i", StepClaimed("a", 1, "w"))
    assert cost(mine, lambda: apply(mine, "i", done("a"))) == 1 + 4
    costs = []
    for n in range(PAUSE + 1):
        begin(mine, f"i{n}")
        costs.append(cost(mine, lambda n=n: apply(mine, f"i{n}", done("a"))))  # type: ignore[misc]
    assert costs == [4] * PAUSE + [1]


def test_a_step_that_is_there_already_is_an_error_once(mine: Ledger, fresh_postgres_url: str) -> None:
    """P1: nobody but a stranger can have put it there. It fails as a whole, and is decided on with the row read then."""
    begin(mine, "i")
    with psycopg.connect(fresh_postgres_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO fuseline_steps (instance_id, name, status, attempt, failures, losses)"
            " VALUES ('i', 'b', 'PENDING', 1, 0, 0)"
        )
    before = stored(mine, "i")
    with pytest.raises(StorageUnavailableError):
        apply(mine, "i", done("a"))
    assert mine.doubts == 1
    assert stored(mine, "i") == before
    (outcome,) = apply(mine, "i", done("a"))
    assert outcome.verdict is Verdict.ACCEPTED
    assert stored(mine, "i").steps["b"].status is Status.QUEUED


def test_what_cannot_be_stored_changes_nothing(mine: Ledger) -> None:
    """P7."""
    begin(mine, "i")
    before = stored(mine, "i")
    for event in (done("a", holder="\x00"), StepReported("a", 1, Status.SUCCEEDED, result={1, 2})):
        with pytest.raises(CallerError):
            apply(mine, "i", event)
        assert stored(mine, "i") == before
        assert mine.doubts == 0
    assert cost(mine, lambda: apply(mine, "i", done("a"))) <= 4


def test_who_has_his_own_transactions_is_given_every_report_in_one(
    mine: Ledger, fresh_postgres_url: str, clock: ManualClock
) -> None:
    """A subclass may write something of its own along with them, and knows nothing of what is remembered."""
    begun = []

    class Audited(PostgresRuntimeStorage):
        @contextmanager
        def transaction(self) -> Iterator[Transaction]:
            with super().transaction() as tx:
                begun.append(tx)
                yield tx

    with closing(Audited(fresh_postgres_url)) as storage:
        ledger = Ledger(storage, clock)
        begin(ledger, "i")
        before = len(begun)
        (outcome,) = apply(ledger, "i", done("a"))
    assert outcome.verdict is Verdict.ACCEPTED
    assert len(begun) == before + 1


@pytest.mark.timeout(30)
def test_who_writes_until_the_end_of_his_own_transactions_is_not_committed_before(
    fresh_postgres_url: str, clock: ManualClock
) -> None:
    """P7: its statement stood behind the commit, and was waited for for ever."""

    class Audited(PostgresRuntimeStorage):
        @contextmanager
        def transaction(self) -> Iterator[Transaction]:
            with super().transaction() as tx:
                yield tx
                tx.save_worker(
                    WorkerView(worker_id="audit", workflows=[], registered_at=1.0, last_seen_at=1.0)
                )

    with closing(Audited(fresh_postgres_url, upgrade=True)) as storage:
        ledger = Ledger(storage, clock)
        ledger.register([graph("g", {"a": []})])
        begun = ledger.begin([Dispatch("g", "1", f"run-{number}") for number in range(50)])
        assert not begun.is_under_way
        assert len(begun.finish()) == 50
        assert [worker.worker_id for worker in storage.list_workers()] == ["audit"]


def begin_anew(mine: Ledger, other: Ledger, clock: ManualClock) -> None:
    """Run `i`, which `mine` remembers; `other` purges it and dispatches another one under its id."""
    begin(mine, "i")
    apply(other, "i", CancelRequested())
    clock.advance(1.0)
    assert other.storage.purge_runs(clock.now()) == 1
    other.apply([Dispatch("chain", "1", "i", {"x": 2})])


def test_a_run_that_was_purged_and_dispatched_anew_is_another_one(
    mine: Ledger, other: Ledger, clock: ManualClock
) -> None:
    begin_anew(mine, other, clock)
    (outcome,) = apply(mine, "i", done("a"))
    assert outcome.assignments[0].payload["workflow_inputs"] == {"x": 2}


def test_a_step_that_a_replay_has_reset_is_not_taken_for_one_that_ended(mine: Ledger, other: Ledger) -> None:
    """P4: it is queued again without a word in the header, and its report counts."""
    all_done = [PolicySpec(name="trigger", config={"rule": "all_done"})]
    mine.register([graph("again", {"a": ["x"], "c": []}, policies={"x": all_done})])
    begin(mine, "i", "again")
    mine.apply([Occurrence("i", StepReported("a", 1, Status.FAILED))])
    mine.apply([Occurrence("i", done("x"))])
    mine.apply([Occurrence("i", StepReplayed("a", 1))])
    other.apply([Occurrence("i", done("a", attempt=2))])
    outcomes = mine.apply([Occurrence("i", done("x", attempt=2)), Occurrence("i", done("c", attempt=2))])
    assert [one.verdict for one in outcomes] == [Verdict.ACCEPTED, Verdict.ACCEPTED]
    assert stored(mine, "i").run.status is RunStatus.SUCCEEDED


def test_a_run_that_was_dispatched_anew_does_not_get_the_inputs_of_the_one_before(
    mine: Ledger, other: Ledger, clock: ManualClock
) -> None:
    """Its header is read and remembered in a transaction that reads no inputs."""
    begin_anew(mine, other, clock)
    begin(mine, "j")
    mine.apply([Occurrence(i, StepClaimed("a", 1, "w"), "chain") for i in ("i", "j")])
    (outcome,) = apply(mine, "i", done("a"))
    assert outcome.assignments[0].payload["workflow_inputs"] == {"x": 2}


# ---- at the very same time


def while_it_waits(mine: Ledger, url: str, event: Event) -> tuple[ThreadPoolExecutor, Future[list[Outcome]]]:
    pool = ThreadPoolExecutor(1)
    told = pool.submit(apply, mine, "i", event)
    until_it_waits(url)
    return pool, told


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "rolled back"])
@pytest.mark.parametrize("what", ["step", "header", "both"])
@pytest.mark.parametrize("last", [False, True], ids=["on the way", "the last step"])
def test_what_is_under_way_elsewhere_is_waited_for_and_looked_at_anew(
    mine: Ledger, other: Ledger, fresh_postgres_url: str, committed: bool, what: str, last: bool
) -> None:
    """P3: the statement begins before the other one commits, and sees all the same what that one leaves."""
    begin(mine, "i")
    step = "a"
    if last:
        apply(mine, "i", done("a"))
        apply(mine, "i", done("b"))
        step = "c"
    before = stored(mine, "i")
    commits = mine.storage.commits  # type: ignore[attr-defined]

    def change() -> tuple[ThreadPoolExecutor, Future[list[Outcome]]]:
        with other.storage.transaction() as tx:
            found = tx.load(Wanted({"i"}, steps={("i", step)}))
            run, row = found.runs["i"].copy(), found.steps["i", step].copy()
            row.status, row.holder = Status.RUNNING, "v"
            run.replays += 1
            changes = Changes()
            if what != "header":
                changes.steps.append(("i", row))
            if what != "step":
                changes.runs.append(run)
            tx.save(changes)
            tx.load(Wanted({"nobody"}))  # so that all of it is at the server
            waiting = while_it_waits(mine, fresh_postgres_url, done(step))
            if not committed:
                raise _RolledBackError(waiting)
        return waiting

    try:
        pool, told = change()
    except _RolledBackError as error:
        pool, told = error.waiting
    with pool:
        (outcome,) = told.result(SECONDS)
    counts = not committed or what == "header"
    assert outcome.verdict is (Verdict.ACCEPTED if counts else Verdict.STALE), outcome.reason
    after = stored(mine, "i")
    assert (after.steps[step].status is Status.SUCCEEDED) is counts
    assert after.run.replays == (committed and what != "step")
    assert (after.run.status is RunStatus.SUCCEEDED) is (counts and last)
    if not committed:
        assert after.steps[step].attempt == before.steps[step].attempt
        assert mine.storage.commits == commits + 1  # type: ignore[attr-defined]


class _RolledBackError(Exception):
    def __init__(self, waiting: tuple[ThreadPoolExecutor, Future[list[Outcome]]]) -> None:
        super().__init__()
        self.waiting = waiting


def test_a_step_that_is_taken_without_the_runs_lock_is_looked_at_anew(
    mine: Ledger, other: Ledger, fresh_postgres_url: str
) -> None:
    """`take_queued` locks the step alone."""
    begin(mine, "i")
    with other.storage.transaction() as tx:
        ((_, row),) = tx.take_queued("chain", "i")
        row = row.copy()
        row.status, row.holder = Status.RUNNING, "v"
        tx.save(Changes(steps=[("i", row)]))
        tx.load(Wanted({"nobody"}))
        pool, told = while_it_waits(mine, fresh_postgres_url, done("a"))
    with pool:
        (outcome,) = told.result(SECONDS)
    assert outcome.verdict is Verdict.STALE
