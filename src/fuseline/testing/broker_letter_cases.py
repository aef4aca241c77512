"""Cases for every broker: steps that failed for good, and what an operator does about them."""

from __future__ import annotations

from typing import Any

import pytest

from fuseline.broker.base import Broker
from fuseline.errors import NotReplayableError, UnknownDeadLetterError
from fuseline.model.messages import StepAssignment, StepReport
from fuseline.model.schema import PolicySpec, WorkflowSchema
from fuseline.model.status import DeadLetterReason, DeadLetterState, RunStatus
from fuseline.model.views import DeadLetterView
from fuseline.testing.broker_cases import NOWHERE, RETRY, MakePlayer, _Cases
from fuseline.testing.flows import graph, report_on

UNKNOWN_LETTER = "0" * 32


def _failed(assignment: StepAssignment) -> StepReport:
    return report_on(assignment, error="it broke")


def _only(broker: Broker, run: str, **query: Any) -> DeadLetterView:
    (letter,) = broker.list_dead_letters(instance_id=run, **query)
    return letter


class DeadLetterCases(_Cases):
    """Listed, shown, replayed once, discarded for good."""

    def fail(
        self, broker: Broker, player: MakePlayer, schema: WorkflowSchema, *failing: str, inputs: Any = None
    ) -> str:
        """A run that has failed at these steps."""
        run = broker.dispatch_workflow(schema, inputs)
        view = player(schema).play(run, dict.fromkeys(failing, _failed))
        assert view.state is RunStatus.FAILED
        return run

    def test_a_step_that_failed_for_good_is_a_dead_letter(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """It knows its run, step, attempt, reason and message; an attempt that is retried is none."""
        schema = graph(workflow_id, {"a": ["b"], "b": ["c"]}, policies={"b": [RETRY]})
        run = self.fail(broker, player, schema, "b", inputs={"x": 1})
        letter = _only(broker, run)
        assert (letter.workflow_id, letter.workflow_version) == (workflow_id, schema.version)
        assert (letter.instance_id, letter.step_name, letter.attempt) == (run, "b", 3)
        assert (letter.reason, letter.state) == (DeadLetterReason.FAILED, DeadLetterState.OPEN)
        assert (letter.error.type, letter.error.message) == ("ValueError", "it broke")
        shown = broker.get_dead_letter(letter.letter_id)
        assert shown.model_dump(exclude={"message"}) == letter.model_dump()
        assert shown.message is not None
        assert (shown.message.step_name, shown.message.attempt) == ("b", 3)
        assert shown.message.payload["workflow_inputs"] == {"x": 1}
        assert shown.message.payload["results"].keys() == {"a"}

    def test_dead_letters_are_found_by_what_they_are(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": []})
        runs = [self.fail(broker, player, schema, "a") for _ in range(3)]
        listed = broker.list_dead_letters(workflow_id=workflow_id)
        assert {letter.instance_id for letter in listed} == set(runs)
        assert [one.letter_id for one in listed] == sorted((one.letter_id for one in listed), reverse=True)
        assert broker.list_dead_letters(workflow_id=workflow_id, limit=1) == listed[:1]
        assert broker.list_dead_letters(workflow_id=workflow_id, before=listed[0].letter_id) == listed[1:]
        of_kind = broker.list_dead_letters(workflow_id=workflow_id, reason=DeadLetterReason.FAILED)
        assert of_kind == listed
        assert broker.list_dead_letters(workflow_id=workflow_id, reason=DeadLetterReason.POISON) == []
        assert broker.list_dead_letters(workflow_id=workflow_id, state=DeadLetterState.REPLAYED) == []
        assert broker.list_dead_letters(instance_id=NOWHERE) == []

    def test_a_replayed_run_ends_as_if_the_step_had_failed_into_a_retry(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """P1, P3: what was cancelled starts, what has succeeded is not done again, the join fires."""
        schema = graph(
            workflow_id, {"a": ["b", "c"], "b": ["end"], "c": ["end"]}, outputs=["end"], policies={}
        )
        run = self.fail(broker, player, schema, "b")
        letter = _only(broker, run)
        replayed = broker.replay_dead_letter(letter.letter_id)
        assert (replayed.took_effect, replayed.state) == (True, DeadLetterState.REPLAYED)
        assert (replayed.next_attempt, replayed.instance_id) == (2, run)
        assert "b" in replayed.steps
        assert broker.get_run(run).state is RunStatus.RUNNING
        worker = player(schema)
        view = worker.play(run, {"b": lambda one: one.attempt, "end": lambda one: one.payload["results"]})
        assert view.state is RunStatus.SUCCEEDED
        assert view.error is None
        assert view.steps["b"].attempt == 2
        assert "a" not in worker.taken
        assert view.outputs["end"]["b"] == 2
        assert _only(broker, run).state is DeadLetterState.REPLAYED

    def test_two_replays_are_one(self, broker: Broker, player: MakePlayer, workflow_id: str) -> None:
        """The second one says so, also when the run has ended again."""
        schema = graph(workflow_id, {"a": []})
        run = self.fail(broker, player, schema, "a")
        letter_id = _only(broker, run).letter_id
        assert broker.replay_dead_letter(letter_id).took_effect
        again = broker.replay_dead_letter(letter_id)
        assert (again.took_effect, again.next_attempt, again.steps) == (False, 2, [])
        view = player(schema).play(run, {"a": _failed})
        assert view.state is RunStatus.FAILED
        assert view.steps["a"].attempt == 2
        assert not broker.replay_dead_letter(letter_id).took_effect
        assert broker.get_run(run).state is RunStatus.FAILED
        second = _only(broker, run, state=DeadLetterState.OPEN)
        assert (second.step_name, second.attempt) == ("a", 2)
        assert broker.replay_dead_letter(second.letter_id).next_attempt == 3
        assert player(schema).play(run).state is RunStatus.SUCCEEDED

    def test_a_replay_brings_all_retries_back(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": []}, policies={"a": [RETRY]})
        run = self.fail(broker, player, schema, "a")
        broker.replay_dead_letter(_only(broker, run).letter_id)
        worker = player(schema)
        assert worker.play(run, {"a": _failed}).steps["a"].attempt == 6
        assert worker.taken == ["a"] * 3

    def test_a_discarded_letter_is_not_replayed(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": []})
        run = self.fail(broker, player, schema, "a")
        letter_id = _only(broker, run).letter_id
        for _ in range(2):
            assert broker.discard_dead_letter(letter_id).state is DeadLetterState.DISCARDED
        with pytest.raises(NotReplayableError, match="discarded"):
            broker.replay_dead_letter(letter_id)
        assert broker.get_run(run).state is RunStatus.FAILED

    def test_what_cannot_be_replayed_is_refused_and_says_why(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """P7: a run that goes on, one that did without the step, one that was cancelled, a letter that never was."""
        groups = {"end": {"p": ["a", "b"]}}
        schema = graph(workflow_id, {"a": ["end"], "b": ["end"]}, outputs=["end"], or_groups=groups)
        goes_on = broker.dispatch_workflow(schema)
        worker = player(schema)
        held = {one.step_name: one for one in (worker.take(), worker.take())}
        broker.report_step(worker.worker_id, _failed(held["a"]))
        worker.eventually(lambda: broker.list_dead_letters(instance_id=goes_on) or None, "no dead letter")
        letter_id = _only(broker, goes_on).letter_id
        with pytest.raises(NotReplayableError, match="goes on"):
            broker.replay_dead_letter(letter_id)
        worker.report(held["b"])
        assert worker.play(goes_on).state is RunStatus.SUCCEEDED
        with pytest.raises(NotReplayableError, match="succeeded"):
            broker.replay_dead_letter(letter_id)
        for unknown in (UNKNOWN_LETTER, "no-id"):
            with pytest.raises(UnknownDeadLetterError):
                broker.replay_dead_letter(unknown)
            with pytest.raises(UnknownDeadLetterError):
                broker.get_dead_letter(unknown)
            with pytest.raises(UnknownDeadLetterError):
                broker.discard_dead_letter(unknown)

    def test_a_cancelled_run_is_not_replayed(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """Somebody wanted it ended."""
        clean = [PolicySpec(name="trigger", config={"rule": "all_done"})]
        schema = graph(workflow_id, {"a": ["z"]}, policies={"z": clean})
        run = broker.dispatch_workflow(schema)
        worker = player(schema)
        broker.report_step(worker.worker_id, _failed(worker.take()))
        worker.take()  # the clean-up, which keeps the run open
        broker.cancel_run(run)
        with pytest.raises(NotReplayableError, match="cancelled"):
            broker.replay_dead_letter(_only(broker, run).letter_id)
        assert broker.get_run(run).state is RunStatus.CANCELLED
