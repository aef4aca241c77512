"""What every broker promises: subclass `BrokerContract` in your tests and give it a `broker` fixture.

    class TestMyBroker(BrokerContract):
        @pytest.fixture
        def broker(self):
            with MyBroker() as broker:
                yield broker

Where time can be moved by the test, subclass `BrokerTimeContract` too (see there).
"""

from __future__ import annotations

from fuseline.testing.broker_cases import RunCases, StepCases, WorkerCases
from fuseline.testing.broker_definition_cases import DefinitionCases
from fuseline.testing.broker_graph_cases import GraphCases
from fuseline.testing.broker_letter_cases import DeadLetterCases
from fuseline.testing.broker_many_cases import DispatchManyCases
from fuseline.testing.broker_time_cases import BrokerTimeContract

__all__ = ["BrokerContract", "BrokerTimeContract"]


class BrokerContract(
    WorkerCases, StepCases, RunCases, DispatchManyCases, DefinitionCases, GraphCases, DeadLetterCases
):
    """All cases that no clock has to be moved for."""
