"""Cases for every storage: the small methods, for brokers that schedule by themselves."""

from __future__ import annotations

import pytest

from fuseline.errors import CallerError, UnknownRunError
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import RunStatus, Status
from fuseline.storage.base import RuntimeStorage
from fuseline.storage.thin import StepHold
from fuseline.storage.transaction import Due
from fuseline.testing.flows import graph
from fuseline.testing.storage_cases import StorageCases


class PlainBroker:
    """A broker of the simplest kind: every step waits for all that it follows, nothing fails."""

    def __init__(self, storage: RuntimeStorage) -> None:
        self.storage = storage

    def dispatch(self, schema: WorkflowSchema, instance_id: str) -> None:
        """Begin a run: steps that follow nothing are queued."""
        self.storage.create_run(schema.workflow_id, instance_id, schema.steps)
        for name, step in schema.steps.items():
            if not step.predecessors:
                self.storage.enqueue(schema.workflow_id, instance_id, name)

    def work(self, schema: WorkflowSchema, worker_id: str) -> str | None:
        """Take one step, execute it, queue what is ready then; the step's name."""
        storage, workflow_id = self.storage, schema.workflow_id
        taken = storage.fetch_next_of_workflow(workflow_id)
        if taken is None:
            return None
        run, name = taken
        storage.assign_step(workflow_id, run, name, worker_id, expires_at=60.0)
        before = [storage.get_result(workflow_id, run, source) for source in schema.steps[name].predecessors]
        storage.set_result(workflow_id, run, name, [name, *before])
        storage.set_state(workflow_id, run, name, Status.SUCCEEDED)
        for following in (target for targets in schema.steps[name].successors.values() for target in targets):
            sources = schema.steps[following].predecessors
            if all(storage.get_state(workflow_id, run, one) is Status.SUCCEEDED for one in sources):
                storage.enqueue(workflow_id, run, following)
        if all(storage.get_state(workflow_id, run, one) is Status.SUCCEEDED for one in schema.steps):
            storage.finalize_run(workflow_id, run)
        return name


class ThinCases(StorageCases):
    """Each method, and a broker made of them."""

    @pytest.fixture
    def run(self, storage: RuntimeStorage) -> str:
        """A run with two steps."""
        storage.create_run("w", "i", ["a", "b"], inputs={"x": 1})
        return "i"

    def test_a_broker_made_of_them_executes_a_diamond(self, storage: RuntimeStorage) -> None:
        schema = graph("w", {"a": ["b", "c"], "b": ["d"], "c": ["d"]})
        broker = PlainBroker(storage)
        broker.dispatch(schema, "i")
        order = [broker.work(schema, "worker") for _ in range(4)]
        assert order[0] == "a"
        assert set(order[1:3]) == {"b", "c"}
        assert order[3] == "d"
        assert broker.work(schema, "worker") is None
        run = storage.read_run_row("i")
        assert run is not None
        assert run.status is RunStatus.SUCCEEDED
        assert run.open_steps == 0
        assert storage.get_result("w", "i", "d") == ["d", ["b", ["a"]], ["c", ["a"]]]
        assert storage.next_due() is None

    def test_a_new_run_has_its_steps_and_inputs(self, storage: RuntimeStorage, run: str) -> None:
        assert storage.get_state("w", run, "a") is Status.PENDING
        assert storage.get_state("w", run, "what nobody spoke of") is Status.PENDING
        assert storage.get_inputs("w", run) == {"x": 1}
        stored = storage.read_run_row(run)
        assert stored is not None
        assert (stored.workflow_id, stored.version, stored.open_steps) == ("w", "1", 2)

    def test_a_run_is_created_once(self, storage: RuntimeStorage, run: str) -> None:
        storage.set_result("w", run, "a", 7)
        with pytest.raises(CallerError, match="exists"):
            storage.create_run("w", run, ["a"])
        assert storage.get_result("w", run, "a") == 7

    def test_a_run_of_another_workflow_is_unknown(self, storage: RuntimeStorage, run: str) -> None:
        for workflow_id, instance_id in (("w", "nobody"), ("other", run)):
            with pytest.raises(UnknownRunError, match=instance_id):
                storage.enqueue(workflow_id, instance_id, "a")
            with pytest.raises(UnknownRunError, match=workflow_id):
                storage.get_state(workflow_id, instance_id, "a")
            with pytest.raises(UnknownRunError):
                storage.get_inputs(workflow_id, instance_id)
            with pytest.raises(UnknownRunError):
                storage.finalize_run(workflow_id, instance_id)
            assert storage.fetch_next(workflow_id, instance_id) is None

    def test_steps_are_fetched_as_they_were_queued_and_once(self, storage: RuntimeStorage, run: str) -> None:
        assert storage.fetch_next("w", run) is None
        storage.enqueue("w", run, "b")
        storage.enqueue("w", run, "b")
        assert storage.get_state("w", run, "b") is Status.QUEUED
        assert storage.fetch_next("w", run) == "b"
        assert storage.get_state("w", run, "b") is Status.RUNNING
        assert storage.fetch_next("w", run) is None
        assert storage.fetch_next("w") is None

    def test_what_is_queued_again_is_the_next_attempt(self, storage: RuntimeStorage, run: str) -> None:
        storage.enqueue("w", run, "a")
        storage.fetch_next("w", run)
        storage.assign_step("w", run, "a", "worker", 60.0)
        storage.enqueue("w", run, "a")
        assert storage.get_assignment("w", run, "a") is None
        assert storage.fetch_next("w") == "a"
        stored = storage.read_run(run)
        assert stored is not None
        assert stored.steps["a"].attempt == 2
        assert stored.run.open_steps == 2

    def test_an_assignment_is_due_when_it_expires(self, storage: RuntimeStorage, run: str) -> None:
        assert storage.get_assignment("w", run, "a") is None
        storage.assign_step("w", run, "a", "worker", 60.0)
        assert storage.get_assignment("w", run, "a") == StepHold("worker", 60.0)
        assert storage.next_due() == 60.0
        with storage.transaction() as tx:
            assert tx.take_due(61.0, 10) == [Due(run, "a", 1, "worker")]
        storage.clear_assignment("w", run, "a")
        assert storage.get_assignment("w", run, "a") is None
        assert storage.get_state("w", run, "a") is Status.RUNNING
        assert storage.next_due() is None

    def test_states_results_and_inputs_are_kept(self, storage: RuntimeStorage, run: str) -> None:
        storage.set_state("w", run, "a", Status.QUEUED)
        assert storage.fetch_next("w", run) == "a"
        storage.set_result("w", run, "a", {"rows": [1, 2]})
        storage.set_state("w", run, "a", Status.SUCCEEDED)
        storage.set_state("w", run, "extra", Status.SKIPPED)
        storage.set_inputs("w", run, {"y": 2})
        assert storage.get_result("w", run, "a") == {"rows": [1, 2]}
        assert storage.get_result("w", run, "b") is None
        assert storage.get_result("w", run, "nobody") is None
        assert storage.get_inputs("w", run) == {"y": 2}
        stored = storage.read_run_row(run)
        assert stored is not None
        assert stored.open_steps == 1

    @pytest.mark.parametrize(
        ("states", "given", "expected"),
        [
            ([Status.SUCCEEDED, Status.SKIPPED], None, RunStatus.SUCCEEDED),
            ([Status.FAILED, Status.CANCELLED], None, RunStatus.FAILED),
            ([Status.SUCCEEDED, Status.RUNNING], None, RunStatus.CANCELLED),
            ([Status.SUCCEEDED, Status.PENDING], RunStatus.SUCCEEDED, RunStatus.SUCCEEDED),
        ],
    )
    def test_a_run_ends_as_its_steps_did(
        self,
        storage: RuntimeStorage,
        run: str,
        states: list[Status],
        given: RunStatus | None,
        expected: RunStatus,
    ) -> None:
        for name, state in zip("ab", states, strict=True):
            storage.set_state("w", run, name, state)
        assert storage.finalize_run("w", run, given) is expected
        assert storage.finalize_run("w", run, RunStatus.CANCELLED) is expected  # it has ended
        stored = storage.read_run(run)
        assert stored is not None
        assert stored.run.finished_at is not None
        assert all(step.status.is_terminal for step in stored.steps.values())

    def test_a_run_cannot_end_running(self, storage: RuntimeStorage, run: str) -> None:
        with pytest.raises(CallerError, match="RUNNING"):
            storage.finalize_run("w", run, RunStatus.RUNNING)
