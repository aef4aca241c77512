"""Commands that come a second time: they may have been applied, and acknowledged to whoever sent them."""

from __future__ import annotations

from typing import Any

import pytest

from fuseline.coordinator.commands import Commands
from fuseline.errors import DefinitionNeededError, InvalidInputsError
from fuseline.ledger import Ledger
from fuseline.model import WorkflowSchema
from tests.unit.ledgers import ledger_with

ONE = WorkflowSchema.model_validate({"workflow_id": "g", "version": "1", "steps": {"a": {"name": "a"}}})
OTHER = ONE.model_copy(update={"inputs_schema": {"type": "object", "required": ["n"]}})


def given(*ids: str) -> tuple[Commands, Ledger, dict[str, Any]]:
    ledger, storage, clock = ledger_with(ONE)
    commands = Commands(ledger, storage, clock)
    return commands, ledger, {"workflow_id": "g", "version": "1", "runs": [(i, {}) for i in ids]}


def test_a_dispatch_that_is_recorded_needs_no_definition_any_more() -> None:
    """P1: else what it began would wait for the sweep."""
    commands, ledger, _ = given()
    args = {"workflow_id": "g", "version": "1", "instance_id": "i", "digest": ONE.digest}
    begun, _ = commands.dispatch(args)
    ledger.apply(begun)
    ledger.register([OTHER])
    with pytest.raises(DefinitionNeededError):
        commands.dispatch(args)
    again, schema = commands.dispatch(args, redelivered=True)
    assert schema.digest == OTHER.digest
    (outcome,) = ledger.apply(again)
    assert [assignment.step_name for assignment in outcome.assignments] == ["a"]
    with pytest.raises(DefinitionNeededError):
        commands.dispatch({**args, "instance_id": "another"}, redelivered=True)


def test_of_many_dispatches_those_that_are_recorded_go_on() -> None:
    commands, ledger, args = given("i", "j")
    begun, _, _ = commands.dispatch_many(args)
    ledger.apply(begun)
    ledger.register([OTHER])
    with pytest.raises(InvalidInputsError):
        commands.dispatch_many(args)
    again, _, error = commands.dispatch_many(args, redelivered=True)
    assert error is None
    assert [one.instance_id for one in again] == ["i", "j"]
    assert [len(outcome.assignments) for outcome in ledger.apply(again)] == [1, 1]


def test_where_only_some_are_recorded_the_caller_is_told_why_not_the_others() -> None:
    """P4: they are not begun, and who is told that all are dispatched does not ask again."""
    commands, ledger, args = given("i", "j")
    ledger.apply(commands.dispatch_many({**args, "runs": [("i", {})]})[0])
    ledger.register([OTHER])
    again, _, error = commands.dispatch_many(args, redelivered=True)
    assert [one.instance_id for one in again] == ["i"]
    assert isinstance(error, InvalidInputsError)


def test_a_run_of_another_workflow_under_the_same_id_is_none_of_it() -> None:
    """P3."""
    commands, ledger, args = given("i")
    ledger.register([ONE.model_copy(update={"workflow_id": "h"})])
    begun, _, _ = commands.dispatch_many({**args, "workflow_id": "h"})
    ledger.apply(begun)
    ledger.register([OTHER])
    with pytest.raises(InvalidInputsError):
        commands.dispatch_many(args, redelivered=True)
