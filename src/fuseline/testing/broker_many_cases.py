"""Cases for every broker: many runs that are dispatched with one call."""

from __future__ import annotations

import pytest

from fuseline.broker.base import Broker
from fuseline.errors import InvalidInputsError
from fuseline.model.status import RunStatus
from fuseline.testing.broker_cases import MakePlayer, _Cases
from fuseline.testing.flows import graph


class DispatchManyCases(_Cases):
    """`dispatch_many`."""

    def test_each_of_the_inputs_is_a_run(self, broker: Broker, player: MakePlayer, workflow_id: str) -> None:
        schema = graph(workflow_id, {"a": []})
        worker = player(schema)
        runs = broker.dispatch_many(schema, [{"n": 1}, None, {"n": 3}])
        assert len(set(runs)) == 3
        assert [broker.get_run(run).inputs for run in runs] == [{"n": 1}, {}, {"n": 3}]
        for _ in runs:
            worker.do("a")
        assert [self.wait(broker, run).state for run in runs] == [RunStatus.SUCCEEDED] * 3

    def test_for_no_inputs_there_is_no_run(self, broker: Broker, workflow_id: str) -> None:
        assert broker.dispatch_many(graph(workflow_id, {"a": []}), []) == []
        assert broker.list_runs(workflow_id=workflow_id) == []

    def test_of_many_inputs_the_one_that_does_not_fit_is_named(
        self, broker: Broker, workflow_id: str
    ) -> None:
        shape = {"type": "object", "properties": {"count": {"type": "integer"}}}
        with pytest.raises(InvalidInputsError, match="'count'"):
            broker.dispatch_many(
                graph(workflow_id, {"a": []}, inputs_schema=shape), [{"count": 1}, {"count": "two"}]
            )
