"""What a batch is: one transaction, items that harm no other, and nothing done twice (P3, P4, P7)."""

from __future__ import annotations

import pytest

from fuseline.engine import Decision, Snapshot, Verdict, decide, new_run
from fuseline.engine.events import (
    CancelRequested,
    Event,
    RunDispatched,
    StepClaimed,
    StepReplayed,
    StepReported,
)
from fuseline.errors import (
    CallerError,
    StorageUnavailableError,
    UnknownRunError,
    UnknownWorkflowError,
)
from fuseline.ledger import Dispatch, Ledger, Occurrence, Outcome
from fuseline.model import RunStatus, Status, StepError
from tests.unit.engine.graphs import Kinds, Tape, read_graph, tapes, tell
from tests.unit.engine.small import parse, policy, schema_of
from tests.unit.ledgers import DISPATCH, handed_out, happened, ledger_with, ok, only

# ---- a batch


def test_a_batch_is_one_transaction_one_save_and_few_loads_whatever_its_size() -> None:
    ledger, storage, _ = ledger_with(parse("a -> b"))
    ids = [f"i{n:03}" for n in range(100)]
    ledger.apply([Dispatch("g", "1", i) for i in ids])
    assert (storage.transactions, len(storage.saves)) == (1, 1)
    storage.forget()
    outcomes = ledger.apply([happened(ok("a"), i) for i in ids])
    assert (storage.transactions, len(storage.saves), len(storage.loads)) == (1, 1, 2)
    assert [outcome.instance_id for outcome in outcomes] == ids
    assert all(handed_out(outcome) == [("b", 1)] for outcome in outcomes)


def test_runs_that_begin_together_are_as_if_each_began_alone() -> None:
    """P2, P3: only the first is decided on. Then each goes its own way, and changes no other."""
    policies = {"a": [policy("expiry", seconds=30)], "b": [policy("timeout", seconds=40)]}
    flow = parse("a -> c; b -> c; d", policies, [policy("timeout", seconds=900)])
    other = parse("x -> y").model_copy(update={"workflow_id": "h"})
    items: list[Dispatch | Occurrence] = [
        Dispatch("g", "1", "first", {"n": 1}),
        Dispatch("h", "1", "another"),
        Dispatch("g", "1", "second"),
        happened(ok("a", result=1), "first"),
        happened(ok("a", result=2), "second"),
        Dispatch("g", "1", "third", {"n": 3}),
        Dispatch("g", "1", "second"),
        happened(CancelRequested(), "third"),
    ]
    together, stored, _ = ledger_with(flow, other)
    alone, stored_alone, _ = ledger_with(flow, other)
    outcomes = together.apply(items)
    expected = [only(alone.apply([item])) for item in items]
    for i in ("first", "second", "third", "another"):
        assert stored.read_run(i) == stored_alone.read_run(i)
    assert [(one.verdict, one.notices) for one in outcomes] == [
        (one.verdict, one.notices) for one in expected
    ]
    assert [one.verdict for one in outcomes].count(Verdict.DUPLICATE) == 1
    assert [handed_out(one) for one in outcomes[1:3]] == [[("x", 1)], [("b", 1), ("d", 1)]]


def test_what_a_beginning_means_is_the_same_for_every_run_of_a_version() -> None:
    policies = {"a": [policy("expiry", seconds=30)], "b": [policy("timeout", seconds=40)]}
    ledger, _, _ = ledger_with(parse("a -> c; b -> c; d", policies, [policy("timeout", seconds=900)]))
    plan = ledger.plan("g", "1")

    def begun(instance_id: str) -> Decision:
        return decide(plan, Snapshot(new_run(plan, instance_id, 5.0), whole=True), RunDispatched(), 5.0)

    first, copied = begun("first"), begun("first").for_run("second")
    assert copied == begun("second") != first
    assert copied.run is not None
    assert copied.run.is_new
    assert all(row.is_new for row in copied.steps.values())  # which `==` does not look at
    copied.steps["a"].attempt = 7
    copied.notices.clear()
    assert first == begun("first")


def test_a_report_that_names_its_workflow_takes_one_load() -> None:
    """What its run's version will ask for is guessed to be what the latest one asked for."""
    ledger, storage, _ = ledger_with(parse("a -> b"))
    ledger.apply([Dispatch("g", "1", "i", {"n": 1})])
    storage.forget()
    (outcome,) = ledger.apply([Occurrence("i", ok("a"), "g")])
    assert len(storage.loads) == 1
    assert handed_out(outcome) == [("b", 1)]
    assert outcome.assignments[0].payload["workflow_inputs"] == {"n": 1}


def test_a_wrong_guess_costs_a_load_and_nothing_else() -> None:
    """P2: another version was asked for last, in which the step leads elsewhere."""
    ledger, storage, _ = ledger_with(parse("a -> c; b -> c"))
    ledger.register([parse("a; b").model_copy(update={"version": "2"})])
    ledger.apply([Dispatch("g", "1", "old", {"n": 1})])
    ledger.apply([Dispatch("g", "2", "new")])
    storage.forget()
    (outcome,) = ledger.apply([Occurrence("old", ok("a"), "g")])
    assert len(storage.loads) == 2
    assert handed_out(outcome) == []
    ledger.apply([Occurrence("new", ok("a"), "g")])
    (outcome,) = ledger.apply([Occurrence("old", ok("b"), "g")])
    assert handed_out(outcome) == [("c", 1)]
    assert outcome.assignments[0].payload["workflow_inputs"] == {"n": 1}


def test_rows_are_written_in_the_order_of_their_keys_so_that_writers_do_not_wait_for_each_other() -> None:
    ledger, storage, _ = ledger_with(parse("b; a"))
    ledger.apply([Dispatch("g", "1", "z"), Dispatch("g", "1", "y")])
    (changes,) = storage.saves
    assert [run.instance_id for run in changes.runs] == ["y", "z"]
    assert [(i, row.name) for i, row in changes.steps] == [("y", "a"), ("y", "b"), ("z", "a"), ("z", "b")]


def test_a_batch_that_changes_nothing_saves_nothing() -> None:
    ledger, storage, _ = ledger_with(parse("a"))
    ledger.apply([DISPATCH])
    storage.forget()
    ledger.apply([happened(ok("a", 7)), DISPATCH, happened(ok("a"), "nobody")])
    assert storage.saves == []
    assert ledger.apply([]) == []


def test_bad_items_in_a_batch_harm_no_other() -> None:
    ledger, storage, _ = ledger_with(parse("a -> b"))
    ledger.apply([DISPATCH])
    outcomes = ledger.apply(
        [
            happened(ok("a"), "nobody"),
            happened(ok("a"), workflow_id="other"),
            Dispatch("missing", "1", "j"),
            Dispatch("g", "2", "j"),
            happened(ok("nowhere")),
            happened(ok("a"), workflow_id="g"),
            Dispatch("g", "1", "j"),
        ]
    )
    assert [type(outcome.error) for outcome in outcomes] == [
        UnknownRunError,
        UnknownRunError,
        UnknownWorkflowError,
        UnknownWorkflowError,
        type(None),
        type(None),
        type(None),
    ]
    assert [outcome.verdict for outcome in outcomes] == [Verdict.UNKNOWN] * 5 + [Verdict.ACCEPTED] * 2
    assert outcomes[0].reason == "no run 'nobody' is known"
    assert outcomes[1].reason == "no run 'i' of workflow 'other' is known"
    assert outcomes[3].reason == "workflow 'g' version '2' is not registered"
    assert outcomes[4].reason == "step 'nowhere' was never queued in this run"
    assert [handed_out(outcome) for outcome in outcomes[5:]] == [[("b", 1)], [("a", 1)]]
    assert storage.read_run_row("j") is not None


def test_a_batch_that_cannot_be_saved_is_not_begun_and_can_be_repeated() -> None:
    ledger, storage, _ = ledger_with(parse("a -> b"))
    ledger.apply([DISPATCH])
    storage.is_full = True
    with pytest.raises(StorageUnavailableError, match="disk is full"):
        ledger.apply([happened(ok("a"))])
    assert ledger.counts == {Verdict.ACCEPTED: 1}
    storage.is_full = False
    assert handed_out(only(ledger.apply([happened(ok("a"))]))) == [("b", 1)]


def test_a_run_dispatched_twice_in_one_batch_is_one_run_and_ends() -> None:
    ledger, _, _ = ledger_with(parse("a"))
    first, second = ledger.apply([DISPATCH, Dispatch("g", "1", "i", {"x": 2})])
    assert (first.verdict, second.verdict) == (Verdict.ACCEPTED, Verdict.DUPLICATE)
    assert first.assignments[0].payload["workflow_inputs"] == {"x": 1}
    assert only(ledger.apply([happened(ok("a"))])).finished is RunStatus.SUCCEEDED


def test_an_instance_id_belongs_to_one_workflow() -> None:
    ledger, _, _ = ledger_with(parse("a"), parse("a").model_copy(update={"workflow_id": "h"}))
    ledger.apply([DISPATCH])
    outcome = only(ledger.apply([Dispatch("h", "1", "i")]))
    assert isinstance(outcome.error, CallerError)
    assert "'i' belongs to a run of another workflow" in outcome.reason


def test_what_a_later_item_of_the_batch_ended_is_not_handed_out() -> None:
    ledger, _, _ = ledger_with(parse("a -> b -> c"))
    outcomes = ledger.apply(
        [DISPATCH, happened(ok("a")), happened(ok("b")), happened(StepClaimed("c", 1, "w"))]
    )
    assert [handed_out(outcome) for outcome in outcomes] == [[], [], [], []]
    outcomes = ledger.apply([Dispatch("g", "1", "j"), happened(CancelRequested(), "j")])
    assert [handed_out(outcome) for outcome in outcomes] == [[], []]
    assert outcomes[1].finished is RunStatus.CANCELLED
    assert outcomes[1].stop is not None


@pytest.mark.parametrize("apart", [True, False])
def test_a_run_that_is_replayed_and_cancelled_in_one_batch_ends_as_if_one_came_after_the_other(
    apart: bool,
) -> None:
    """P3: between its two ends it went on, though no row ever says so; the count of its replays does."""
    ledger, storage, _ = ledger_with(parse("a -> b"))
    ledger.apply([DISPATCH, happened(StepReported("a", 1, Status.FAILED, error=StepError(type="E")))])
    asked = [happened(StepReplayed("a", 1)), happened(CancelRequested())]
    batches = [asked[:1], asked[1:]] if apart else [asked]
    replayed, cancelled = [outcome for batch in batches for outcome in ledger.apply(batch)]
    assert handed_out(replayed) == ([("a", 2)] if apart else [])
    assert replayed.verdict is cancelled.verdict is Verdict.ACCEPTED
    assert cancelled.stop is not None
    assert cancelled.stop.replays == 1
    run, row = storage._runs["i"], storage._steps["i"]["a"]
    assert (run.status, run.replays, run.open_steps) == (RunStatus.CANCELLED, 1, 0)
    assert (row.status, row.attempt, row.due_at) == (Status.CANCELLED, 2, None)
    # It is final: nobody can replay it any more, and the second attempt is nobody's.
    late = ledger.apply([happened(StepReplayed("a", 2)), happened(ok("a", 2))])
    assert Verdict.ACCEPTED not in {outcome.verdict for outcome in late}
    assert storage._runs["i"] == run


def test_verdicts_are_counted() -> None:
    ledger, _, _ = ledger_with(parse("a"))
    ledger.apply(
        [DISPATCH, DISPATCH, happened(ok("a")), happened(ok("a")), happened(ok("a", 2)), happened(ok("b"))]
    )
    assert ledger.counts == {
        Verdict.ACCEPTED: 2,
        Verdict.DUPLICATE: 2,
        Verdict.STALE: 1,
        Verdict.UNKNOWN: 1,
    }


@tapes(60, length=200)
def test_however_events_are_cut_into_batches_the_same_rows_come_out(tape: Tape) -> None:
    graph = tell(read_graph(tape, Kinds()))
    names = list(graph.schema.steps)
    items: list[Dispatch | Occurrence] = [DISPATCH]
    for _ in range(40):
        name, attempt = tape.pick(names), 1 + tape.below(2)
        failed = StepReported(name, attempt, Status.FAILED, error=StepError(type="E"))
        events: list[Event] = [ok(name, attempt), failed, StepClaimed(name, attempt, "w"), RunDispatched()]
        items.append(happened(events[tape.pick((0, 0, 0, 0, 1, 1, 2, 2, 3))]))
    cuts = sorted(tape.below(len(items)) for _ in range(4))
    states = []
    for bounds in ([], list(range(1, len(items))), cuts):
        ledger, storage, _ = ledger_with(graph.schema)
        outcomes: list[Outcome] = []
        for begin, end in zip([0, *bounds], [*bounds, len(items)], strict=True):
            outcomes += ledger.apply(items[begin:end])
        verdicts = [outcome.verdict for outcome in outcomes]
        states.append((verdicts, storage._runs, dict(storage._steps["i"]), dict(storage._joins["i"])))
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize("report", ["m1", "m9"])
def test_an_event_reads_and_writes_as_many_rows_in_a_wide_run_as_in_a_narrow_one(report: str) -> None:
    """P6. The header, the step, the join's counter, the run's inputs for what is queued."""
    counts = []
    for width in (20, 1_000):
        middle = [f"m{n}" for n in range(width)]
        edges = [(a, "default", b) for m in middle for a, b in (("first", m), (m, "last"), (m, f"then-{m}"))]
        ledger, storage, _ = ledger_with(
            schema_of(edges, ["first", *middle, *(f"then-{m}" for m in middle), "last"])
        )
        ledger.apply([DISPATCH])
        ledger.apply([happened(ok("first")), happened(ok("m0"))])
        storage.forget()
        ledger.apply([happened(ok(report))])
        read = [len(w.runs) + len(w.steps) + len(w.joins) + len(w.inputs) for w in storage.loads]
        assert not any(wanted.whole for wanted in storage.loads)
        (saved,) = storage.saves
        counts.append((read, len(saved.runs), len(saved.steps), len(saved.joins)))
    assert (
        counts[0] == counts[1] == ([2, 1, 1], 0, 2, 1)
    )  # the header stays as it is: one step ended, one was opened


# ---- what is handed out


def test_an_assignment_carries_inputs_and_the_results_on_the_edges_that_were_taken() -> None:
    schema = parse("a -> d; b -left> d; b -right> e; c -> d", {"d": [policy("trigger", rule="all_done")]})
    ledger, _, clock = ledger_with(schema)
    ledger.apply([DISPATCH])
    ledger.apply([happened(ok("a", result=[1])), happened(ok("b", result="left"))])
    outcome = only(ledger.apply([happened(StepReported("c", 1, Status.SKIPPED))]))
    (assignment,) = outcome.assignments
    assert assignment.payload["workflow_inputs"] == {"x": 1}
    assert assignment.payload["results"] == {"a": [1], "b": "left"}
    assert (assignment.step_name, assignment.attempt, assignment.workflow_version) == ("d", 1, "1")
    assert (assignment.assigned_at, assignment.expires_at) == (clock.now(), clock.now() + 60)


def test_the_winner_of_an_or_group_supplies_its_value_at_every_attempt() -> None:
    edges = [("a", "default", "z"), ("b", "default", "z"), ("c", "default", "z")]
    groups = {"z": {"p": ["a", "b"]}}
    ledger, _, _ = ledger_with(schema_of(edges, list("abcz"), {"z": [policy("retry")]}, groups))
    ledger.apply([DISPATCH])
    ledger.apply([happened(ok("b", result="b")), happened(ok("a", result="a"))])
    outcome = only(ledger.apply([happened(ok("c", result="c"))]))
    assert outcome.assignments[0].payload["results"] == {"b": "b", "c": "c"}
    again = only(ledger.apply([happened(StepReported("z", 1, Status.FAILED))]))
    assert again.assignments[0].payload["results"] == {"b": "b", "c": "c"}


def test_an_assignment_says_how_long_it_may_run_and_wait() -> None:
    ledger, _, clock = ledger_with(
        parse("a", {"a": [policy("timeout", seconds=7), policy("expiry", seconds=9)]})
    )
    outcome = only(ledger.apply([DISPATCH]))
    (assignment,) = outcome.assignments
    assert (assignment.timeout_seconds, assignment.expires_at) == (7.0, clock.now() + 7.0)
    assert outcome.expiry_seconds == {"a": 9.0}


def test_what_is_offered_again_is_marked() -> None:
    ledger, _, _ = ledger_with(parse("a -> b"))
    ledger.apply([DISPATCH])
    assert only(ledger.apply([DISPATCH])).offered_again == {"a"}
    assert only(ledger.apply([happened(ok("a"))])).offered_again == set()
    outcome = only(ledger.apply([happened(ok("a", redelivered=True))]))
    assert (outcome.verdict, handed_out(outcome), outcome.offered_again) == (
        Verdict.DUPLICATE,
        [("b", 1)],
        {"b"},
    )


def test_a_broker_that_starts_anew_is_offered_what_is_still_queued() -> None:
    ledger, storage, _ = ledger_with(parse("a -> b; c"))
    ledger.apply([DISPATCH, Dispatch("g", "1", "j", {"x": 2})])
    ledger.apply([happened(ok("a", result=5)), happened(StepClaimed("c", 1, "w"), "j")])
    storage.forget()
    outcomes = ledger.offer_again(
        [
            ("i", "a", 1),
            ("i", "b", 1),
            ("i", "b", 2),
            ("i", "nowhere", 1),
            ("j", "c", 1),
            ("j", "a", 1),
            ("k", "a", 1),
        ]
    )
    assert {outcome.instance_id: handed_out(outcome) for outcome in outcomes} == {
        "i": [("b", 1)],
        "j": [("a", 1)],
    }
    payloads = {outcome.instance_id: outcome.assignments[0].payload for outcome in outcomes}
    assert payloads["i"]["results"] == {"a": 5}
    assert payloads["j"]["workflow_inputs"] == {"x": 2}
    assert (storage.transactions, storage.saves) == (1, [])
    assert ledger.offer_again([]) == []


# ---- timers


def earliest(ledger: Ledger) -> float | None:
    return ledger.earliest_due


def test_due_timers_are_decided_on_and_the_next_one_is_known() -> None:
    ledger, _, clock = ledger_with(parse("a", run_policies=[policy("workflow_timeout", seconds=500)]))
    ledger.apply([DISPATCH])
    assert ledger.earliest_due == clock.now() + 120
    ledger.apply([happened(StepClaimed("a", 1, "w"))])
    assert ledger.earliest_due == clock.now() + 60
    assert ledger.apply_due() == []
    clock.advance(60)
    ledger.earliest_due = None
    outcome = only(ledger.apply_due(renewals=lambda due: clock.now() + 30 if due.holder == "w" else None))
    assert (outcome.verdict, outcome.assignments) == (Verdict.ACCEPTED, [])
    assert earliest(ledger) == clock.now() + 30
    clock.advance(30)
    assert handed_out(only(ledger.apply_due())) == [("a", 2)]
    clock.advance(410)
    run = next(outcome for outcome in ledger.apply_due() if outcome.finished)
    assert run.finished is RunStatus.FAILED
    assert ledger.apply_due() == []


def test_so_many_timers_are_taken_at_once_and_no_more() -> None:
    ledger, _, clock = ledger_with(parse("a; b; c"))
    ledger.apply([DISPATCH])
    clock.advance(120)
    assert [len(ledger.apply_due(limit=2)) for _ in range(3)] == [2, 1, 0]
