"""`Worker` and `ProcessEngine` with workflows as users write them, over a broker with five methods."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuseline.broker import MemoryBroker
from fuseline.errors import BrokerUnavailableError, CallerError, LoadError
from fuseline.model import Cause, RunStatus, Status, StepAssignment, StepReport
from fuseline.settings import Settings
from fuseline.worker import LocalBrokerClient, ProcessEngine, Worker
from fuseline.workflow import Workflow, step
from tests.unit.worker import flows
from tests.unit.worker.five import SECONDS, FiveMethods


def of(step_name: str, **more: Any) -> StepAssignment:
    inputs = more.pop("inputs", {})
    values: dict[str, Any] = {
        "workflow_id": "flow",
        "workflow_version": "1",
        "instance_id": f"i-{step_name}",
        "step_name": step_name,
        "payload": {"workflow_inputs": inputs, "results": {}},
        "assigned_at": 1.0,
        "expires_at": 61.0,
    }
    return StepAssignment(**(values | more))


def work(broker: FiveMethods, *assignments: StepAssignment, **options: Any) -> dict[str, StepReport]:
    """Let a worker execute these; the reports by step."""
    broker.add(*assignments)
    worker = Worker(broker, flows.flow, **options)
    assert worker.run_until_idle(0.05) == len(assignments)
    reports = [broker.next_report() for _ in assignments]
    return {report.step_name: report for report in reports}


@pytest.fixture
def broker() -> FiveMethods:
    return FiveMethods()


@pytest.mark.parametrize("executor", ["thread", "async", "process"])
def test_sync_and_async_steps_are_executed_on_every_executor(broker: FiveMethods, executor: Any) -> None:
    reports = work(
        broker,
        of("double", inputs={"value": 21}),
        of("greet"),
        of("whereabouts"),
        of("leave"),
        of("strange"),
        executor=executor,
        concurrency=2,
    )
    assert reports["double"].result == 42
    assert reports["greet"].result == "hello"
    assert (reports["whereabouts"].result == os.getpid()) is (executor != "process")
    left = reports["leave"].error
    assert left is not None
    assert left.type == "SystemExit"
    odd = reports["strange"].error
    assert odd is not None
    assert odd.cause is Cause.INVALID
    assert {report.worker_id for report in reports.values()} == {"worker 1"}
    assert broker.registered[0][0].key == ("flow", "1")


def test_a_step_that_ends_its_process_is_a_failed_report(broker: FiveMethods) -> None:
    reports = work(broker, of("vanish"), of("double", inputs={"value": 1}), executor="process", concurrency=1)
    error = reports["vanish"].error
    assert error is not None
    assert error.type == "WorkerProcessDied"
    assert reports["double"].result == 2


def test_a_timed_out_step_is_killed_with_its_process(broker: FiveMethods, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    reports = work(
        broker,
        of("linger", inputs={"path": str(path)}, timeout_seconds=2.0),
        executor="process",
        concurrency=1,
    )
    error = reports["linger"].error
    assert error is not None
    assert error.cause is Cause.TIMEOUT
    with pytest.raises(ProcessLookupError):
        os.kill(int(path.read_text()), 0)


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_the_hooks_of_the_steps_are_called_once_and_to_the_end(
    broker: FiveMethods, executor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hooks"
    monkeypatch.setenv("HOOKED_PATH", str(path))
    names = ["hooked", "hooked", "hooked_async", "hooked_async"]
    broker.add(*(of(name, workflow_id="hooked", instance_id=f"i{n}") for n, name in enumerate(names)))
    assert Worker(broker, flows.hooked, executor=executor, concurrency=1).run_until_idle(0.05) == 4
    assert {broker.next_report().state for _ in names} == {Status.SUCCEEDED}
    assert sorted(path.read_text().splitlines()) == ["after", "before", "same loop: True"]


def test_an_unknown_step_is_a_failed_report(broker: FiveMethods) -> None:
    reports = work(broker, of("missing"), of("double", inputs={"value": 1}))
    error = reports["missing"].error
    assert error is not None
    assert error.cause is Cause.INVALID
    assert "missing" in error.message
    assert reports["double"].state is Status.SUCCEEDED


def test_stop_before_run_and_while_it_runs(broker: FiveMethods) -> None:
    worker = Worker(broker, flows.flow, concurrency=1)
    worker.stop()
    assert worker.run_until_idle(3600.0) == 0
    broker.on_report = lambda _report: worker.stop()
    broker.add(of("greet"))
    assert worker.run_until_idle(3600.0) == 1


def test_arguments_that_make_no_sense_are_named(broker: FiveMethods) -> None:
    with pytest.raises(CallerError, match="'ftp://x' is neither a Broker nor"):
        Worker("ftp://x", flows.flow)
    with pytest.raises(CallerError, match="at least one workflow"):
        Worker(broker, [])
    with pytest.raises(LoadError, match="there is no module 'nowhere'"):
        Worker(broker, "nowhere:flow")
    with pytest.raises(CallerError, match="3 is neither a Workflow nor module:attribute"):
        Worker(broker, [3])  # type: ignore[list-item]  # what a user does by mistake

    @step
    def one() -> int:
        return 1

    twin = Workflow(outputs=[one], workflow_id="flow", version="1")
    with pytest.raises(CallerError, match="two workflows are 'flow' version '1'"):
        Worker(broker, [flows.flow, twin])
    with pytest.raises(LoadError, match="executor='thread'"):
        Worker(broker, twin, executor="process")


# ---- ProcessEngine


def test_the_engine_works_until_there_is_nothing_and_calls_from_one_thread(broker: FiveMethods) -> None:
    broker.add(of("double", inputs={"value": 2}), of("greet"))
    engine = ProcessEngine(LocalBrokerClient(broker), flows.flow)
    assert engine.work(block=False) == 2
    assert broker.next_report().result == 4
    assert broker.next_report().result == "hello"
    assert engine.work(block=False) == 0
    assert broker.threads == {threading.get_ident()}
    assert len(broker.registered) == 1


def test_the_engine_says_that_it_lives_and_enforces_timeouts(broker: FiveMethods, tmp_path: Path) -> None:
    broker.add(of("linger", inputs={"path": str(tmp_path / "x")}, timeout_seconds=0.5))
    engine = ProcessEngine(broker, flows.flow, settings=Settings(heartbeat_seconds=0.02))
    assert engine.work(block=False) == 1
    error = broker.next_report().error
    assert error is not None
    assert error.cause is Cause.TIMEOUT
    assert broker.beats.get_nowait() == "worker 1"
    assert broker.threads == {threading.get_ident()}
    (tmp_path / "x.go").touch()


def test_a_blocking_engine_waits_out_its_broker_until_it_is_stopped(broker: FiveMethods) -> None:
    failures = iter(["get_step", "report_step"])
    due = next(failures)

    def fail(method: str) -> None:
        nonlocal due
        if method == due:
            due = next(failures, "")
            raise BrokerUnavailableError("away")

    broker.fail = fail
    engine = ProcessEngine(broker, flows.flow)
    broker.on_report = lambda _report: engine.stop()
    broker.add(of("greet"))
    assert engine.work() == 1
    assert broker.next_report().result == "hello"
    assert due == ""


def test_an_engine_that_was_forgotten_registers_again(broker: FiveMethods) -> None:
    engine = ProcessEngine(broker, flows.flow)
    engine.work(block=False)
    broker.known.clear()
    broker.add(of("greet"))
    assert engine.work(block=False) == 1
    assert broker.reports.get(timeout=SECONDS).worker_id == "worker 2"


# ---- over a broker of ours


def test_worker_and_engine_finish_a_run_of_a_memory_broker() -> None:
    with MemoryBroker() as broker:
        executes: list[Callable[[], int]] = [
            lambda: Worker(broker, flows.chain).run_until_idle(),
            lambda: ProcessEngine(LocalBrokerClient(broker), [flows.chain]).work(block=False),
        ]
        for execute in executes:
            run_id = broker.dispatch_workflow(flows.chain.to_schema(), {"value": 1})
            assert execute() == 3
            run = broker.get_run(run_id)
            assert run.state is RunStatus.SUCCEEDED
            assert run.steps["third"].result["b"] == 20
