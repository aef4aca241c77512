"""Cases for every broker: workers, the steps that they are handed, and what is known of runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from fuseline.broker.base import Broker
from fuseline.clock import SystemClock
from fuseline.errors import (
    DeadlineExceededError,
    InvalidInputsError,
    SchemaConflictError,
    StaleReportError,
    UnknownRunError,
    UnknownWorkerError,
    UnknownWorkflowError,
)
from fuseline.model.messages import StepAssignment, StepReport
from fuseline.model.schema import PolicySpec, WorkflowSchema
from fuseline.model.status import RunStatus, Status
from fuseline.model.views import RunView
from fuseline.testing.flows import Player, graph, report_on

NOWHERE = "0" * 32
RETRY = PolicySpec(name="retry", config={"max_retries": 3})


class _Cases:
    """`patience_seconds`: how long a broker may take for what follows from a call."""

    patience_seconds: float = 15.0

    knows_at_once: bool = True
    """False for a broker that learns of a cancellation a little after it: a step of a cancelled run may still be handed
    out there, and its report be taken, as long as nothing comes of it."""

    @pytest.fixture
    def broker(self) -> Broker:
        """The broker under test, ready for calls."""
        raise NotImplementedError("give the contract a `broker` fixture")

    @pytest.fixture
    def workflow_id(self) -> str:
        """A workflow that no other test has: what is behind the broker may be shared."""
        return f"contract-{SystemClock().new_id()[16:]}"

    @pytest.fixture
    def player(self, broker: Broker) -> Callable[..., Player]:
        """`player(schema, ...)`: a worker that executes these."""

        def make(*schemas: WorkflowSchema) -> Player:
            return Player(broker, broker.register_worker(schemas), self.patience_seconds)

        return make

    def wait(self, broker: Broker, instance_id: str) -> RunView:
        """The run, which must end."""
        return broker.wait(instance_id, self.patience_seconds)

    def report_in_vain(self, worker: Player, assignment: StepAssignment) -> None:
        """Report what is held no longer: it is refused, at the latest where it would be recorded."""
        with pytest.raises(StaleReportError) if self.knows_at_once else suppress(StaleReportError):
            worker.report(assignment, result="in vain")


MakePlayer = Callable[..., Player]


class WorkerCases(_Cases):
    """Registering."""

    def test_each_worker_gets_an_id_of_its_own(self, broker: Broker, workflow_id: str) -> None:
        schema = graph(workflow_id, {"a": []})
        first, second = broker.register_worker([schema]), broker.register_worker([schema])
        assert first != second
        known = {worker.worker_id: worker for worker in broker.list_workers()}
        assert known[first].workflows == [schema.key]
        assert known[first].alive

    def test_registered_workflows_are_listed(self, broker: Broker, workflow_id: str) -> None:
        schema = graph(workflow_id, {"a": ["b"]}, outputs=["b"])
        broker.register_worker([schema])
        view = next(one for one in broker.list_workflows() if one.workflow_id == workflow_id)
        assert (view.version, view.steps, view.outputs) == ("1", 2, ["b"])
        assert broker.get_workflow(workflow_id) == schema
        assert broker.get_workflow(workflow_id, "1") == schema

    def test_another_graph_under_the_same_version_is_refused(self, broker: Broker, workflow_id: str) -> None:
        broker.register_worker([graph(workflow_id, {"a": ["b"]})])
        with pytest.raises(SchemaConflictError, match="'c'"):
            broker.register_worker([graph(workflow_id, {"a": ["b", "c"]})])
        assert broker.register_worker([graph(workflow_id, {"a": ["b", "c"]}, version="2")])

    def test_a_change_of_policies_alone_is_accepted_and_serves_from_then_on(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        worker = player(graph(workflow_id, {"a": []}))
        patient = graph(workflow_id, {"a": []}, policies={"a": [RETRY]})
        broker.register_worker([patient])
        run = broker.dispatch_workflow(patient)
        worker.do("a", error="once")
        assert worker.take().attempt == 2
        assert broker.get_run(run).state is RunStatus.RUNNING

    def test_an_unknown_workflow_is_not_found(self, broker: Broker, workflow_id: str) -> None:
        with pytest.raises(UnknownWorkflowError, match=workflow_id):
            broker.get_workflow(workflow_id)
        with pytest.raises(UnknownWorkflowError, match=workflow_id):
            broker.get_workflow(workflow_id, "1")

    def test_an_unknown_worker_is_refused(self, broker: Broker, player: MakePlayer, workflow_id: str) -> None:
        schema = graph(workflow_id, {"a": []})
        worker = player(schema)
        broker.dispatch_workflow(schema)
        assignment = worker.take()
        calls: list[Callable[[], object]] = [
            lambda: broker.get_step(NOWHERE),
            lambda: broker.keep_alive(NOWHERE),
            lambda: broker.report_step(NOWHERE, report_on(assignment)),
        ]
        for call in calls:
            with pytest.raises(UnknownWorkerError):
                call()


class StepCases(_Cases):
    """Handing out and reporting."""

    def test_an_assignment_says_all_that_a_worker_needs(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": ["b"]})
        worker = player(schema)
        run = broker.dispatch_workflow(schema, {"path": "/data", "deep": {"list": [1, None, "ü"]}})
        first = worker.take()
        assert (first.workflow_id, first.workflow_version) == (workflow_id, "1")
        assert (first.instance_id, first.step_name, first.attempt) == (run, "a", 1)
        inputs = {"path": "/data", "deep": {"list": [1, None, "ü"]}}
        assert first.payload == {"workflow_inputs": inputs, "results": {}}
        assert first.expires_at == pytest.approx(first.assigned_at + 60.0)
        worker.report(first, result={"rows": [1, 2.5]})
        assert worker.take().payload == {"workflow_inputs": inputs, "results": {"a": {"rows": [1, 2.5]}}}

    def test_a_step_with_a_timeout_is_held_for_that_long(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        timeout = PolicySpec(name="timeout", config={"seconds": 300})
        schema = graph(workflow_id, {"a": []}, policies={"a": [timeout]})
        worker = player(schema)
        broker.dispatch_workflow(schema)
        assignment = worker.take()
        assert assignment.timeout_seconds == 300
        assert assignment.expires_at == pytest.approx(assignment.assigned_at + 300)

    def test_there_is_nothing_without_a_run(self, player: MakePlayer, workflow_id: str) -> None:
        assert player(graph(workflow_id, {"a": []})).has_nothing()

    def test_a_step_goes_to_one_worker_that_executes_it(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": []})
        one, other, stranger = (
            player(schema),
            player(schema),
            player(graph(workflow_id + "-other", {"a": []})),
        )
        broker.dispatch_workflow(schema)
        assert stranger.has_nothing()
        assert one.take().step_name == "a"
        assert other.has_nothing()

    def test_dispatch_registers_the_schema(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": []})
        run = broker.dispatch_workflow(schema)
        assert broker.get_workflow(workflow_id) == schema
        player(schema).do("a")
        assert self.wait(broker, run).state is RunStatus.SUCCEEDED

    def test_dispatch_of_a_conflicting_schema_is_refused(self, broker: Broker, workflow_id: str) -> None:
        broker.register_worker([graph(workflow_id, {"a": ["b"]})])
        with pytest.raises(SchemaConflictError, match="'c'"):
            broker.dispatch_workflow(graph(workflow_id, {"a": ["b", "c"]}))

    @pytest.mark.parametrize(
        ("inputs", "named"),
        [({"count": "many"}, "count"), ({"count": 1, "where": 5}, "where"), ({}, "count")],
    )
    def test_inputs_that_do_not_fit_name_the_field(
        self, broker: Broker, workflow_id: str, inputs: dict[str, Any], named: str
    ) -> None:
        fields = {"count": {"type": "integer"}, "where": {"type": "string"}}
        shape = {"type": "object", "properties": fields, "required": ["count"]}
        with pytest.raises(InvalidInputsError, match=named):
            broker.dispatch_workflow(graph(workflow_id, {"a": []}, inputs_schema=shape), inputs)
        assert broker.list_runs(workflow_id=workflow_id) == []

    def test_inputs_that_are_not_json_name_the_place(self, broker: Broker, workflow_id: str) -> None:
        with pytest.raises(InvalidInputsError, match=r"files\[1\]"):
            broker.dispatch_workflow(graph(workflow_id, {"a": []}), {"files": ["x", object()]})

    def test_a_failure_without_retries_fails_the_run(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": ["b"]})
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        worker.do("a", error="no such file")
        view = self.wait(broker, run)
        assert view.state is RunStatus.FAILED
        assert view.failed_step == "a"
        assert view.error is not None
        assert (view.error.type, view.error.message) == ("ValueError", "no such file")
        assert view.steps["b"].state is Status.CANCELLED
        assert worker.has_nothing()

    def test_a_retry_is_a_new_attempt_and_the_old_one_is_over(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """P3, P5: the attempt's number fences."""
        schema = graph(workflow_id, {"a": []}, policies={"a": [RETRY]})
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        first = worker.do("a", error="once")
        second = worker.take()
        assert (first.attempt, second.attempt) == (1, 2)
        with pytest.raises(StaleReportError):
            worker.report(first, result="late")
        worker.report(second, result="in time")
        view = self.wait(broker, run)
        assert view.state is RunStatus.SUCCEEDED
        assert (view.steps["a"].attempt, view.steps["a"].result) == (2, "in time")

    def test_retries_end(self, broker: Broker, player: MakePlayer, workflow_id: str) -> None:
        schema = graph(workflow_id, {"a": []}, policies={"a": [RETRY]})
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        for attempt in (1, 2, 3):
            assert worker.do("a", error="always").attempt == attempt
        view = self.wait(broker, run)
        assert (view.state, view.steps["a"].attempt) == (RunStatus.FAILED, 3)

    def test_a_report_twice_changes_nothing(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """P3: what was recorded first stays."""
        schema = graph(workflow_id, {"a": ["b"]})
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        first = worker.do("a", result="once")
        worker.report(first, result="once")
        second = worker.take()
        worker.report(first, result="once")
        assert worker.has_nothing()
        worker.report(second)
        view = self.wait(broker, run)
        assert (view.state, view.steps["a"].result) == (RunStatus.SUCCEEDED, "once")

    def test_a_report_by_a_worker_that_does_not_hold_the_step_is_refused(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """P5: one holder."""
        schema = graph(workflow_id, {"a": []})
        holder, other = player(schema), player(schema)
        run = broker.dispatch_workflow(schema)
        assignment = holder.take()
        with pytest.raises(StaleReportError):
            other.report(assignment, result="forged")
        holder.report(assignment, result="mine")
        assert self.wait(broker, run).steps["a"].result == "mine"

    def test_a_failure_told_again_is_taken_although_the_next_attempt_is_queued(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """P3: who got no answer repeats the call, and must not be told that it lost what it has reported itself."""
        schema = graph(workflow_id, {"a": []}, policies={"a": [RETRY]})
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        first = worker.do("a", error="once")
        second = worker.take()
        worker.report(first, error="once")
        with pytest.raises(StaleReportError):
            worker.report(first, result="something else")
        worker.report(second)
        view = self.wait(broker, run)
        assert (view.state, view.steps["a"].attempt) == (RunStatus.SUCCEEDED, 2)

    def test_a_report_of_an_unknown_run_is_refused(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        worker = player(graph(workflow_id, {"a": []}))
        report = StepReport(
            workflow_id=workflow_id, instance_id=NOWHERE, step_name="a", state=Status.SUCCEEDED
        )
        with pytest.raises(UnknownRunError):
            broker.report_step(worker.worker_id, report)

    def test_keep_alive_is_taken(self, broker: Broker, player: MakePlayer, workflow_id: str) -> None:
        schema = graph(workflow_id, {"a": []})
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        assignment = worker.take()
        broker.keep_alive(worker.worker_id)
        worker.report(assignment)
        assert self.wait(broker, run).state is RunStatus.SUCCEEDED


class RunCases(_Cases):
    """Watching and cancelling."""

    def test_a_view_shows_how_a_run_stands(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": ["b"], "b": ["c"]}, outputs=["c"])
        worker = player(schema)
        run = broker.dispatch_workflow(schema, {"n": 1})
        worker.do("a", result=41)
        worker.take()
        view = broker.get_run(run)
        assert (view.state, view.inputs) == (RunStatus.RUNNING, {"n": 1})
        assert list(view.steps) == ["a", "b", "c"]
        done = view.steps["a"]
        assert (done.state, done.attempt, done.result) == (Status.SUCCEEDED, 1, 41)
        assert done.queued_at is not None
        assert done.finished_at is not None
        assert view.steps["b"].state in (Status.QUEUED, Status.RUNNING)
        assert view.steps["c"].state is Status.PENDING

    def test_a_finished_run_gives_its_outputs(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": ["b"]}, outputs=["b"])
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        view = worker.play(run, {"b": lambda one: {"total": 7}})
        assert view.outputs == {"b": {"total": 7}}
        assert view.finished_at is not None
        assert view.finished_at >= view.created_at

    def test_an_unknown_run_is_not_found(self, broker: Broker) -> None:
        for call in (broker.get_run, broker.cancel_run, lambda i: broker.wait(i, 1)):
            with pytest.raises(UnknownRunError, match=NOWHERE):
                call(NOWHERE)

    def test_runs_are_listed_newest_first_by_workflow_and_state_and_page(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": []})
        runs = sorted((broker.dispatch_workflow(schema) for _ in range(3)), reverse=True)
        listed = broker.list_runs(workflow_id=workflow_id)
        assert [run.instance_id for run in listed] == runs
        broker.cancel_run(runs[1])
        open_runs = broker.list_runs(workflow_id=workflow_id, state=RunStatus.RUNNING)
        assert [run.instance_id for run in open_runs] == [runs[0], runs[2]]
        page = broker.list_runs(workflow_id=workflow_id, limit=1, before=runs[0])
        assert [(run.instance_id, run.state) for run in page] == [(runs[1], RunStatus.CANCELLED)]

    def test_nothing_comes_of_a_queued_step_of_a_cancelled_run(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": ["b"]})
        worker = player(schema)
        broker.cancel_run(run := broker.dispatch_workflow(schema))
        view = self.wait(broker, run)
        assert view.state is RunStatus.CANCELLED
        assert {step.state for step in view.steps.values()} == {Status.CANCELLED}
        marker = broker.dispatch_workflow(schema)
        taken = worker.take()
        if taken.instance_id == run and not self.knows_at_once:
            self.report_in_vain(worker, taken)
            taken = worker.take()
        assert taken.instance_id == marker  # behind the cancelled one, if that were still there
        assert self.wait(broker, run).steps["a"].state is Status.CANCELLED

    def test_a_running_step_of_a_cancelled_run_cannot_be_reported(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """P5: its holder is told at its next contact."""
        schema = graph(workflow_id, {"a": ["b"]})
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        assignment = worker.take()
        broker.cancel_run(run)
        self.report_in_vain(worker, assignment)
        marker = broker.dispatch_workflow(schema)
        worker.do("a")
        assert worker.take().instance_id == marker  # no successor of what was cancelled
        assert broker.get_run(run).steps["a"].state is Status.CANCELLED

    def test_cancelling_twice_is_the_same_as_once(self, broker: Broker, workflow_id: str) -> None:
        run = broker.dispatch_workflow(graph(workflow_id, {"a": []}))
        broker.cancel_run(run)
        broker.cancel_run(run)
        assert self.wait(broker, run).state is RunStatus.CANCELLED

    def test_a_run_that_has_ended_otherwise_cannot_be_cancelled(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": []})
        run = broker.dispatch_workflow(schema)
        player(schema).do("a")
        self.wait(broker, run)
        with pytest.raises(StaleReportError, match="SUCCEEDED"):
            broker.cancel_run(run)
        assert broker.get_run(run).state is RunStatus.SUCCEEDED

    def test_waiting_ends_with_the_run(self, broker: Broker, player: MakePlayer, workflow_id: str) -> None:
        schema = graph(workflow_id, {"a": []})
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        views: list[RunView] = []
        waiter = threading.Thread(target=lambda: views.append(self.wait(broker, run)))
        waiter.start()
        worker.do("a", result=1)
        waiter.join(self.patience_seconds)
        assert [view.steps["a"].result for view in views] == [1]

    def test_waiting_has_a_deadline_and_the_run_goes_on(self, broker: Broker, workflow_id: str) -> None:
        """P7: never a hang."""
        run = broker.dispatch_workflow(graph(workflow_id, {"a": []}))
        with pytest.raises(DeadlineExceededError, match=run):
            broker.wait(run, 0.05)
        assert broker.get_run(run).state is RunStatus.RUNNING

    def test_the_status_counts(self, broker: Broker, workflow_id: str) -> None:
        before = broker.status()
        broker.register_worker([graph(workflow_id, {"a": []})])
        broker.dispatch_workflow(graph(workflow_id, {"a": []}))
        after = broker.status()
        assert after["runs"]["RUNNING"] == before["runs"]["RUNNING"] + 1
        assert after["workers"] >= 1
        assert isinstance(after["broker"], str)
