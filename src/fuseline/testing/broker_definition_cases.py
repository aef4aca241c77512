"""Cases for every broker: definitions that are too large to be sent about for nothing."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from fuseline.broker.base import Broker
from fuseline.errors import SchemaConflictError
from fuseline.model.schema import PolicySpec, WorkflowSchema
from fuseline.model.status import RunStatus
from fuseline.testing.broker_cases import RETRY, MakePlayer, _Cases
from fuseline.testing.flows import graph

PARTS = [f"part-{number:03}" for number in range(100)]


def wide(
    workflow_id: str, parts: Iterable[str] = PARTS, policies: Iterable[PolicySpec] = ()
) -> WorkflowSchema:
    """One step, and many after it. The policies are the first one's."""
    return graph(workflow_id, {"split": parts}, policies={"split": policies})


class DefinitionCases(_Cases):
    """A dispatch says which definition it is of, by whatever way."""

    def test_a_large_definition_is_registered_by_its_dispatch(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = wide(workflow_id)
        runs = [broker.dispatch_workflow(schema), *broker.dispatch_many(schema, [{}, {}])]
        assert broker.get_workflow(workflow_id) == schema
        worker = player(schema)
        for _ in runs:
            worker.do("split")

    def test_of_a_large_definition_in_conflict_the_difference_is_named(
        self, broker: Broker, workflow_id: str
    ) -> None:
        """P7; and nothing begins."""
        broker.register_worker([wide(workflow_id)])
        with pytest.raises(SchemaConflictError, match="'part-099' was removed"):
            broker.dispatch_workflow(wide(workflow_id, PARTS[:-1]))
        with pytest.raises(SchemaConflictError, match="'more' was added"):
            broker.dispatch_many(wide(workflow_id, [*PARTS, "more"]), [{}])
        assert broker.list_runs(workflow_id=workflow_id) == []

    def test_large_definitions_whose_policies_differ_serve_from_their_dispatch_on(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """To and fro."""
        patient, hasty = wide(workflow_id, policies=[RETRY]), wide(workflow_id)
        worker = player(hasty)
        run = broker.dispatch_workflow(patient)
        worker.do("split", error="once")
        again = worker.take()
        assert again.attempt == 2
        broker.dispatch_workflow(hasty)
        worker.report(again, error="twice")
        assert self.wait(broker, run).state is RunStatus.FAILED
