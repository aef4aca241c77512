"""Cases for a broker whose clock a test can move: leases, timeouts, retries that wait, deadlines."""

from __future__ import annotations

import pytest

from fuseline.broker.base import Broker
from fuseline.errors import StaleReportError, UnknownWorkerError
from fuseline.model.messages import Cause
from fuseline.model.schema import PolicySpec
from fuseline.model.status import RunStatus, Status
from fuseline.testing.broker_cases import MakePlayer, _Cases
from fuseline.testing.flows import graph


def _policy(name: str, **config: object) -> PolicySpec:
    return PolicySpec(name=name, config=config)


class BrokerTimeContract(_Cases):
    """`advance` moves the broker's clock; its leases last 60 s."""

    def advance(self, seconds: float) -> None:
        """Move the broker's clock forward."""
        raise NotImplementedError("give the contract an `advance` method")

    def test_a_worker_that_is_silent_loses_what_it_held(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """P1, P5: another one gets the next attempt, and the late report is refused."""
        schema = graph(workflow_id, {"a": []})
        silent, other = player(schema), player(schema)
        run = broker.dispatch_workflow(schema)
        lost = silent.take()
        self.advance(59)
        assert other.has_nothing()
        self.advance(2)
        again = other.take()
        assert (again.step_name, again.attempt) == ("a", 2)
        with pytest.raises(StaleReportError):
            silent.report(lost, result="late")
        other.report(again, result="in time")
        view = self.wait(broker, run)
        assert (view.state, view.steps["a"].result) == (RunStatus.SUCCEEDED, "in time")

    def test_keep_alive_carries_on_what_a_worker_holds(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": []})
        worker, other = player(schema), player(schema)
        run = broker.dispatch_workflow(schema)
        assignment = worker.take()
        for _ in range(20):
            self.advance(30)
            broker.keep_alive(worker.worker_id)
            broker.keep_alive(other.worker_id)
            assert other.has_nothing()
        worker.report(assignment, result="slow and sure")
        assert self.wait(broker, run).steps["a"].attempt == 1

    def test_a_worker_that_stops_keeping_alive_loses_what_it_held(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": []})
        worker, other = player(schema), player(schema)
        broker.dispatch_workflow(schema)
        assignment = worker.take()
        for _ in range(3):
            self.advance(30)
            broker.keep_alive(worker.worker_id)
        self.advance(61)
        assert other.take().attempt == 2
        with pytest.raises(StaleReportError):
            worker.report(assignment)

    def test_a_step_that_its_worker_has_lost_is_not_carried_on_by_asking_for_others(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """P1: its handler raised, say, and nobody reports; it goes on to ask for steps."""
        schema = graph(workflow_id, {"a": []})
        worker = player(schema)
        broker.dispatch_workflow(schema)
        worker.take()
        self.advance(30)
        assert worker.has_nothing()
        self.advance(31)
        assert worker.take().attempt == 2

    def test_a_worker_that_keeps_alive_and_stops_loses_a_long_step_soon(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """The silence of a worker that used to be heard tells more than the step's timeout."""
        schema = graph(workflow_id, {"a": []}, policies={"a": [_policy("timeout", seconds=3600)]})
        worker, other = player(schema), player(schema)
        broker.keep_alive(worker.worker_id)
        broker.dispatch_workflow(schema)
        worker.take()
        self.advance(61)
        assert other.take().attempt == 2

    def test_a_worker_that_never_keeps_alive_has_the_whole_timeout(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": []}, policies={"a": [_policy("timeout", seconds=600)]})
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        assignment = worker.take()
        self.advance(599)
        assert player(schema).has_nothing()
        worker.report(assignment)
        assert self.wait(broker, run).state is RunStatus.SUCCEEDED

    def test_a_step_that_its_worker_does_not_end_times_out(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """The worker lives, the step does not end: that is a failure of the step's."""
        schema = graph(workflow_id, {"a": []}, policies={"a": [_policy("timeout", seconds=100)]})
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        worker.take()
        for _ in range(4):
            self.advance(28)
            broker.keep_alive(worker.worker_id)
        view = self.wait(broker, run)
        assert view.state is RunStatus.FAILED
        assert view.error is not None
        assert view.error.cause is Cause.TIMEOUT

    def test_a_retry_waits_its_time(self, broker: Broker, player: MakePlayer, workflow_id: str) -> None:
        retry = _policy("retry", max_retries=2, wait=30.0)
        schema = graph(workflow_id, {"a": []}, policies={"a": [retry]})
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        worker.do("a", error="once")
        self.advance(29)
        assert worker.has_nothing()
        assert worker.state(run, "a") is Status.PENDING
        self.advance(2)
        assert worker.do("a").attempt == 2
        assert self.wait(broker, run).state is RunStatus.SUCCEEDED

    def test_a_step_that_no_worker_takes_expires(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": []}, policies={"a": [_policy("expiry", seconds=20)]})
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        self.advance(21)
        assert worker.has_nothing()
        view = self.wait(broker, run)
        assert view.error is not None
        assert view.error.cause is Cause.EXPIRED

    def test_a_run_has_a_deadline(self, broker: Broker, player: MakePlayer, workflow_id: str) -> None:
        deadline = _policy("workflow_timeout", seconds=90)
        schema = graph(workflow_id, {"a": []}, workflow_policies=[deadline])
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        assignment = worker.take()
        self.advance(91)
        view = self.wait(broker, run)
        assert view.state is RunStatus.FAILED
        assert view.error is not None
        assert view.error.cause is Cause.RUN_TIMEOUT
        with pytest.raises(StaleReportError):
            worker.report(assignment)

    def test_a_step_that_takes_down_worker_after_worker_is_poison(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """P1: no step is handed out for ever."""
        schema = graph(workflow_id, {"a": []})
        run = broker.dispatch_workflow(schema)
        for attempt in range(1, 6):
            assert player(schema).take().attempt == attempt
            self.advance(61)
        view = self.wait(broker, run)
        assert view.error is not None
        assert view.error.cause is Cause.POISON

    def test_a_worker_that_is_silent_for_long_is_forgotten(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """P6: and told so when it comes back, so that it registers again."""
        worker = player(graph(workflow_id, {"a": []}))
        self.advance(90)
        known = {one.worker_id: one for one in broker.list_workers()}
        assert not known[worker.worker_id].alive
        self.advance(600)
        assert worker.worker_id not in {one.worker_id for one in broker.list_workers()}
        with pytest.raises(UnknownWorkerError):
            worker.has_nothing()
