"""Workflow versions as the ledger knows them: registered all or nothing, compiled once, changed where that is safe."""

from __future__ import annotations

import pytest

from fuseline.engine.events import (
    StepDuePassed,
    StepReported,
)
from fuseline.errors import (
    DefinitionNeededError,
    InvalidSchemaError,
    SchemaConflictError,
    UnknownWorkflowError,
)
from fuseline.ledger import Ledger
from fuseline.model import PolicySpec, Status, WorkerView, WorkflowSchema
from tests.unit.engine.small import parse, policy
from tests.unit.ledgers import DISPATCH, RULES, handed_out, happened, ledger_with, only


def test_registering_is_all_or_nothing() -> None:
    ledger, storage, _ = ledger_with(parse("a"))
    worker = WorkerView(worker_id="w", registered_at=0.0, last_seen_at=0.0)
    new = parse("a").model_copy(update={"workflow_id": "h"})
    with pytest.raises(
        SchemaConflictError, match="'g' version '1' is registered with another graph: step 'a' was"
    ):
        ledger.register([new, parse("b")], worker)
    assert [stored.schema.workflow_id for stored in storage.list_schemas()] == ["g"]
    assert storage.list_workers() == []
    with pytest.raises(UnknownWorkflowError, match="'h' version '1' is not registered"):
        ledger.plan("h", "1")
    ledger.register([new, parse("a")], worker)
    assert storage.list_workers() == [worker]
    assert ledger.schema("h", "1") == new


def test_a_version_given_twice_and_not_alike_is_a_conflict() -> None:
    ledger, storage, _ = ledger_with()
    with pytest.raises(SchemaConflictError, match="'g' version '1' is given twice, and not alike"):
        ledger.register([parse("a"), parse("b")])
    assert storage.list_schemas() == []
    ledger.register([parse("a"), parse("a")])


@pytest.mark.parametrize(
    "schema",
    [
        parse("a", {"a": [policy("retry", max_retries=0)]}),
        parse("a", run_policies=[policy("workflow_timeout", seconds=-1)]),
        parse("a").model_copy(update={"inputs_schema": {"type": "thing"}}),
    ],
)
def test_a_definition_with_a_wrong_policy_or_inputs_schema_is_refused(schema: WorkflowSchema) -> None:
    ledger, storage, _ = ledger_with()
    with pytest.raises(InvalidSchemaError):
        ledger.register([schema])
    assert storage.list_schemas() == []


def retrying(times: int) -> WorkflowSchema:
    return parse("a -> b", {"a": [PolicySpec(name="retry", config={"max_retries": times})]})


def test_changed_policies_serve_attempts_from_then_on() -> None:
    ledger, _, _ = ledger_with(retrying(1))
    ledger.apply([DISPATCH])
    ledger.register([retrying(2)])
    assert handed_out(only(ledger.apply([happened(StepReported("a", 1, Status.FAILED))]))) == [("a", 2)]
    with pytest.raises(SchemaConflictError, match="trigger of step 'b' changed from all_success to all_done"):
        ledger.register([parse("a -> b[all_done]")])


def test_policies_that_another_coordinator_registered_are_seen_within_seconds() -> None:
    ledger, storage, clock = ledger_with(retrying(1))
    ledger.apply([DISPATCH])
    other = Ledger(storage, clock, RULES)
    other.register([retrying(2)])
    clock.advance(5)
    assert handed_out(only(ledger.apply([happened(StepReported("a", 1, Status.FAILED))]))) == [("a", 2)]


def test_a_plan_is_read_once_for_a_while_and_compiled_once_while_it_stays_the_same() -> None:
    ledger, storage, clock = ledger_with(parse("a"))
    fresh = Ledger(storage, clock, RULES)
    storage.forget()
    plan = fresh.plan("g", "1")
    assert fresh.plan("g", "1") is plan
    assert storage.transactions == 1
    clock.advance(6)
    assert fresh.plan("g", "1") is plan
    assert storage.transactions == 2
    assert ledger.rules is RULES


def test_a_run_whose_definition_is_gone_is_an_error_of_its_item_alone() -> None:
    ledger, storage, clock = ledger_with(parse("a"))
    ledger.apply([DISPATCH])
    storage._schemas.clear()
    clock.advance(6)
    outcome = only(ledger.apply([happened(StepDuePassed("a"))]))
    assert isinstance(outcome.error, UnknownWorkflowError)


def test_a_digest_stands_for_the_definition_that_is_registered() -> None:
    ledger, _, _ = ledger_with(retrying(1))
    assert ledger.schema_with_digest(("g", "1"), retrying(1).digest) == retrying(1)
    with pytest.raises(DefinitionNeededError, match="'g' version '1' is registered with another definition"):
        ledger.schema_with_digest(("g", "1"), retrying(2).digest)
    with pytest.raises(DefinitionNeededError, match="'g' version '2' is not registered"):
        ledger.schema_with_digest(("g", "2"), retrying(1).digest)


def test_a_digest_is_compared_with_what_another_coordinator_registered_just_now() -> None:
    """What is told to count from now on must not be taken for what another one has put in its place."""
    ledger, storage, clock = ledger_with(retrying(1))
    assert ledger.schema_with_digest(("g", "1"), retrying(1).digest) == retrying(1)
    other = Ledger(storage, clock, RULES)
    other.register([retrying(2)])
    with pytest.raises(DefinitionNeededError):
        ledger.schema_with_digest(("g", "1"), retrying(1).digest)
    assert ledger.schema_with_digest(("g", "1"), retrying(2).digest) == retrying(2)
