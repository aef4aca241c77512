"""What is not frozen when the program runs compares and hashes as if it were."""

from __future__ import annotations

import copy
import pickle

from fuseline.engine.effects import QueueStep
from fuseline.engine.events import Event, StepExpired, StepPoisoned, StepReported
from fuseline.model import Status


def test_facts_are_equal_by_kind_and_fields_and_can_be_keys() -> None:
    expired = StepExpired("a", 1)
    assert expired == StepExpired("a", 1)
    others: set[Event] = {StepPoisoned("a", 1), StepExpired("a", 2)}
    assert expired not in others
    assert {expired, StepExpired("a", 1), StepExpired("a", 2)} == {expired, StepExpired("a", 2)}
    assert hash(QueueStep("a", 1)) == hash(QueueStep("a", 1, again=False))


def test_facts_have_no_other_fields_and_survive_copies() -> None:
    reported = StepReported("a", 1, Status.SUCCEEDED, result=[1])
    assert not hasattr(reported, "__dict__")
    assert copy.copy(reported) == pickle.loads(pickle.dumps(reported)) == reported
