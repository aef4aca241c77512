"""A lone run that begins is one statement, and begins once, whoever else dispatches it (P3)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest

from fuseline.clock import ManualClock
from fuseline.engine import Verdict
from fuseline.engine.events import CancelRequested, StepReported
from fuseline.errors import CallerError
from fuseline.ledger import Dispatch, Ledger, Occurrence, Outcome
from fuseline.ledger.book import MAX_RECALLED
from fuseline.model import RunStatus, Status
from fuseline.storage import PostgresRuntimeStorage
from fuseline.storage.base import Changes, NotRemembered, StoredRun
from fuseline.storage.recollection import MAX_STEPS, RecalledTransaction, Recollection
from fuseline.testing.flows import graph
from fuseline.testing.storage_cases import run_row, step_row
from tests.unit.storage.waiting import until_it_waits

CHAIN = graph("chain", {"a": ["b"], "b": []})
TWO = graph("two", {"a": ["c"], "b": ["c"], "c": []})
OTHER = graph("other", {"a": []})
SECONDS = 30.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def mine(fresh_postgres_url: str, clock: ManualClock) -> Iterator[Ledger]:
    storage = PostgresRuntimeStorage(fresh_postgres_url, upgrade=True)
    ledger = Ledger(storage, clock)
    ledger.register([CHAIN, TWO, OTHER])
    ledger.apply(
        [Dispatch(flow.workflow_id, "1", f"first {flow.workflow_id}") for flow in (CHAIN, TWO, OTHER)]
    )
    yield ledger
    storage.close()


@pytest.fixture
def other(mine: Ledger, fresh_postgres_url: str, clock: ManualClock) -> Iterator[Ledger]:
    """Of another coordinator on the same database."""
    storage = PostgresRuntimeStorage(fresh_postgres_url)
    yield Ledger(storage, clock)
    storage.close()


def begin(ledger: Ledger, i: str, workflow_id: str = "chain", x: int = 1) -> Outcome:
    (outcome,) = ledger.apply([Dispatch(workflow_id, "1", i, {"x": x})])
    return outcome


def counts(ledger: Ledger) -> tuple[int, int]:
    """(statements, commits) so far."""
    storage = ledger.storage
    assert isinstance(storage, PostgresRuntimeStorage)
    return storage.statements, storage.commits


def stored(ledger: Ledger, i: str) -> StoredRun:
    found = ledger.storage.read_run(i)
    assert found is not None
    return found


@pytest.mark.parametrize("workflow_id", ["chain", "two"])
def test_it_is_one_statement_and_records_what_a_transaction_records(
    mine: Ledger, other: Ledger, monkeypatch: pytest.MonkeyPatch, workflow_id: str
) -> None:
    monkeypatch.setattr(other, "_apply_recalled", lambda _items: None)
    before = counts(mine)
    told = [begin(ledger, i, workflow_id) for ledger, i in ((mine, "i"), (other, "j"))]
    assert counts(mine) == (before[0] + 1, before[1] + 1)
    assert [one.verdict for one in told] == [Verdict.ACCEPTED] * 2
    names = [[assignment.step_name for assignment in one.assignments] for one in told]
    assert names[0] == names[1] != []
    found = [stored(mine, i) for i in "ij"]
    for one in found:
        one.run.instance_id = "same"
    assert found[0] == found[1]
    assert found[0].inputs == {"x": 1}


def test_the_report_of_its_first_step_is_one_as_well(mine: Ledger) -> None:
    begin(mine, "i")
    before = counts(mine)
    mine.apply([Occurrence("i", StepReported("a", 1, Status.SUCCEEDED), "chain")])
    assert counts(mine) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize("first", ["mine", "other"])
def test_a_second_dispatch_of_it_offers_its_steps_again_and_changes_nothing(
    mine: Ledger, other: Ledger, first: str
) -> None:
    """P3, P4: whoever was first may have died before anything went out."""
    begin(mine if first == "mine" else other, "i")
    before = stored(mine, "i")
    outcome = begin(mine, "i", x=2)
    assert outcome.verdict is Verdict.DUPLICATE
    assert outcome.offered_again == {"a"}
    assert outcome.assignments[0].payload["workflow_inputs"] == {"x": 1}
    assert stored(mine, "i") == before


def test_a_dispatch_of_a_run_that_has_ended_changes_nothing(mine: Ledger, other: Ledger) -> None:
    begin(other, "i")
    other.apply([Occurrence("i", CancelRequested())])
    outcome = begin(mine, "i")
    assert outcome.verdict is Verdict.DUPLICATE
    assert not outcome.assignments
    assert stored(mine, "i").run.status is RunStatus.CANCELLED


def test_an_id_of_another_workflows_run_is_refused(mine: Ledger, other: Ledger) -> None:
    """P7."""
    begin(other, "i", "other")
    outcome = begin(mine, "i")
    assert isinstance(outcome.error, CallerError)
    assert "belongs to a run of another workflow" in outcome.reason
    assert stored(mine, "i").run.workflow_id == "other"


def test_what_is_not_json_is_refused_and_nothing_is_there(mine: Ledger) -> None:
    """P7."""
    with pytest.raises(CallerError):
        mine.apply([Dispatch("chain", "1", "i", {"x": float("nan")})])
    assert mine.storage.read_run("i") is None
    assert begin(mine, "i").verdict is Verdict.ACCEPTED


def test_inputs_that_cannot_be_stored_are_no_matter_where_the_run_is_there(mine: Ledger) -> None:
    """P3: a second dispatch changes nothing, whatever it says."""
    begin(mine, "i")
    (outcome,) = mine.apply([Dispatch("chain", "1", "i", {"x": float("nan")})])
    assert outcome.verdict is Verdict.DUPLICATE
    assert not mine.doubts


@pytest.mark.parametrize(
    "left",
    [
        "INSERT INTO fuseline_inputs VALUES ('i', '{\"x\": 7}')",
        "INSERT INTO fuseline_steps VALUES ('i', 'a', 'FAILED', 9, 9, 9)",
    ],
    ids=["inputs", "a step"],
)
def test_what_is_left_of_a_run_that_was_deleted_by_hand_is_in_nobodys_way(
    mine: Ledger, fresh_postgres_url: str, left: str
) -> None:
    """P1: a dispatch that failed over it would come again for ever."""
    with psycopg.connect(fresh_postgres_url) as connection:
        connection.execute(left)
    assert begin(mine, "i").verdict is Verdict.ACCEPTED
    found = stored(mine, "i")
    assert (found.inputs, found.steps["a"].attempt) == ({"x": 1}, 1)


def test_a_run_that_was_purged_begins_anew(mine: Ledger, other: Ledger, clock: ManualClock) -> None:
    begin(mine, "i")
    other.apply([Occurrence("i", CancelRequested())])
    assert other.storage.purge_runs(clock.now() + 1.0) == 1
    clock.advance(1.0)
    assert begin(mine, "i", x=2).verdict is Verdict.ACCEPTED
    assert stored(mine, "i").inputs == {"x": 2}


def test_a_run_that_begins_widely_is_written_as_ever(mine: Ledger) -> None:
    """P1, P6: a statement that takes too long would begin again for ever."""
    names = [f"s{n:03}" for n in range(MAX_RECALLED + 1)]
    mine.register([graph("wide", {name: [] for name in names})])
    begin(mine, "first", "wide")
    before = counts(mine)
    assert len(begin(mine, "i", "wide").assignments) == len(names)
    assert counts(mine)[0] > before[0] + 1
    unit = RecalledTransaction(Recollection())
    steps = [("i", step_row(f"s{n}", is_new=True)) for n in range(MAX_STEPS + 1)]
    unit.save(Changes([run_row("i")], steps, inputs={"i": {}}))
    with pytest.raises(NotRemembered):
        unit.beginning()


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "rolled back"])
def test_who_dispatches_the_same_at_the_same_time_waits_for_the_other(
    mine: Ledger, fresh_postgres_url: str, committed: bool
) -> None:
    with ThreadPoolExecutor(1) as pool, closing(psycopg.connect(fresh_postgres_url)) as connection:
        connection.execute(
            "INSERT INTO fuseline_runs (instance_id, workflow_id, version, status, created_at, open_steps) "
            "VALUES ('i', 'chain', '1', 'RUNNING', 1.0, 1)"
        )
        connection.execute("INSERT INTO fuseline_inputs VALUES ('i', '{\"x\": 7}')")
        connection.execute(
            "INSERT INTO fuseline_steps (instance_id, name, status, attempt, failures, losses) "
            "VALUES ('i', 'a', 'QUEUED', 1, 0, 0)"
        )
        told = pool.submit(begin, mine, "i")
        until_it_waits(fresh_postgres_url)
        (connection.commit if committed else connection.rollback)()
        outcome = told.result(SECONDS)
    assert outcome.verdict is (Verdict.DUPLICATE if committed else Verdict.ACCEPTED)
    assert stored(mine, "i").inputs == {"x": 7 if committed else 1}
