"""Policies: data in the schema, objects again by the registry, and those that users write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from fuseline import (
    Depends,
    ExpiryPolicy,
    FailureDecision,
    PolicyDecision,
    PolicyError,
    RetryPolicy,
    RunFailed,
    Step,
    StepPolicy,
    StepTimeoutPolicy,
    TimeoutPolicy,
    TriggerPolicy,
    Workflow,
    WorkflowPolicy,
    WorkflowTimeoutPolicy,
    step,
)
from fuseline.engine import compile_plan
from fuseline.model import PolicySpec, RunView, Status, Trigger
from fuseline.workflow import register_policy
from fuseline.workflow.policies import Policy, policy_from_spec


@pytest.mark.parametrize(
    ("policy", "data"),
    [
        (
            RetryPolicy(5, 0.5, 2.0, 60, 0.2, retry_on=[ValueError, "my.Error"], no_retry_on=KeyError),
            {
                "name": "retry",
                "config": {
                    "max_retries": 5,
                    "wait": 0.5,
                    "backoff": 2.0,
                    "max_wait": 60,
                    "jitter": 0.2,
                    "retry_on": ["ValueError", "my.Error"],
                    "no_retry_on": ["KeyError"],
                },
            },
        ),
        (TimeoutPolicy(30), {"name": "timeout", "config": {"seconds": 30}}),
        (ExpiryPolicy(1.5), {"name": "expiry", "config": {"seconds": 1.5}}),
        (TriggerPolicy("one_failed"), {"name": "trigger", "config": {"rule": "one_failed"}}),
        (TriggerPolicy(Trigger.ALL_DONE), {"name": "trigger", "config": {"rule": "all_done"}}),
        (WorkflowTimeoutPolicy(60), {"name": "workflow_timeout", "config": {"seconds": 60}}),
    ],
    ids=repr,
)
def test_policies_are_data_in_the_schema_and_a_registry_turns_them_back(
    policy: Policy, data: dict[str, Any]
) -> None:
    assert policy.to_spec().model_dump() == data
    back = policy_from_spec(PolicySpec(**data))
    assert type(back) is type(policy)
    assert back == policy
    assert hash(back) == hash(policy)


def test_step_timeout_policy_is_another_name_of_timeout_policy() -> None:
    assert StepTimeoutPolicy is TimeoutPolicy


def test_the_engine_reads_the_data() -> None:
    @step(
        policies=[
            RetryPolicy(4, 1.0, 3.0, jitter=0.5),
            TimeoutPolicy(7),
            ExpiryPolicy(9),
            TriggerPolicy("all_done"),
        ]
    )
    def one() -> int:
        return 1

    workflow = Workflow(outputs=[one], policies=[WorkflowTimeoutPolicy(11)])
    plan = compile_plan(workflow.to_schema())
    planned = plan.steps["one"]
    assert planned.retry is not None
    assert (planned.retry.max_attempts, planned.retry.backoff, planned.retry.jitter) == (4, 3.0, 0.5)
    assert (planned.timeout_seconds, planned.expiry_seconds, planned.trigger) == (7, 9, Trigger.ALL_DONE)
    assert plan.run_timeout_seconds == 11


def test_every_default_of_a_retry_policy_is_one_that_the_engine_takes() -> None:
    @step(policies=[RetryPolicy()])
    def one() -> int:
        return 1

    retry = compile_plan(Workflow(outputs=[one]).to_schema()).steps["one"].retry
    assert retry is not None
    assert retry.max_attempts == 3


class ConnectionError(OSError):  # noqa: A001 - an error that a builtin has the name of is what is tested
    """As some libraries have."""


def test_errors_are_named_so_that_another_process_knows_them() -> None:
    class Mine(Exception):
        pass

    policy = RetryPolicy(retry_on=[Mine, ConnectionError, TimeoutError])
    assert policy.retry_on == ["Mine", f"{__name__}.ConnectionError", "TimeoutError"]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: RetryPolicy(0), "RetryPolicy: max_retries is a number of attempts from 1, not 0"),
        (lambda: RetryPolicy(True), "max_retries is a number of attempts"),
        (lambda: RetryPolicy(wait=-1), "RetryPolicy: wait is a number from 0, not -1"),
        (lambda: RetryPolicy(wait=float("nan")), "RetryPolicy: wait is a number"),
        (lambda: RetryPolicy(wait=float("inf")), "RetryPolicy: wait is finite"),
        (lambda: RetryPolicy(backoff=0.5), "RetryPolicy: backoff is a number from 1 to 1000, not 0.5"),
        (lambda: RetryPolicy(max_wait=-1), "RetryPolicy: max_wait is a number"),
        (lambda: RetryPolicy(jitter=1.5), "RetryPolicy: jitter is a number from 0 to 1, not 1.5"),
        (lambda: RetryPolicy(retry_on=[3]), "retry_on holds exception classes or their names, not 3"),  # type: ignore[list-item]
        (lambda: RetryPolicy(no_retry_on=int), "no_retry_on holds exception classes"),  # type: ignore[arg-type]
        (lambda: TimeoutPolicy(0), "TimeoutPolicy: seconds is more than 0"),
        (lambda: TimeoutPolicy("3"), "TimeoutPolicy: seconds is a number"),  # type: ignore[arg-type]
        (lambda: ExpiryPolicy(-3), "ExpiryPolicy: seconds is a number"),
        (lambda: WorkflowTimeoutPolicy(0), "WorkflowTimeoutPolicy: seconds is more than 0"),
        (lambda: TriggerPolicy("sometimes"), r"rule 'sometimes' is unknown \(known: all_success"),
        (
            lambda: policy_from_spec(PolicySpec(name="no such")),
            r"no policy is registered as 'no such' \(known:",
        ),
        (
            lambda: policy_from_spec(PolicySpec(name="timeout", config={"second": 1})),
            "'timeout' cannot be made of",
        ),
    ],
)
def test_a_wrong_policy_names_the_field_where_it_is_written(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(PolicyError, match=problem):
        make()


# ---- shipped policies at work (the engine's own tests have the arithmetic)


def test_max_retries_counts_attempts_in_all() -> None:
    calls: list[int] = []

    @step(policies=[RetryPolicy(max_retries=3, wait=0.001)])
    def flaky() -> int:
        calls.append(1)
        raise ValueError("of no use")

    with pytest.raises(RunFailed):
        Workflow(outputs=[flaky]).run()
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("policy", "attempts"),
    [
        (RetryPolicy(2, retry_on=[LookupError]), 2),  # by a base class
        (RetryPolicy(2, retry_on="builtins.KeyError"), 2),
        (RetryPolicy(2, retry_on=ValueError), 1),
        (RetryPolicy(2, no_retry_on=KeyError), 1),
        (RetryPolicy(2, no_retry_on=["ValueError"]), 2),
    ],
    ids=repr,
)
def test_errors_are_matched_by_class_and_base_class(policy: RetryPolicy, attempts: int) -> None:
    calls: list[int] = []

    @step(policies=[policy])
    def flaky() -> int:
        calls.append(1)
        raise KeyError("gone")

    with pytest.raises(RunFailed):
        Workflow(outputs=[flaky]).run()
    assert len(calls) == attempts


# ---- policies of your own


class Recorder(StepPolicy):
    name = "test_policies_recorder"

    def __init__(self, label: str = "a") -> None:
        self.label = label
        self._calls: list[str] = []

    def execute(self, step: Step, call: Callable[[], Any]) -> Any:
        self._calls.append(f"{self.label} around")
        return call() + 1

    async def execute_async(self, step: Step, call: Callable[[], Awaitable[Any]]) -> Any:
        self._calls.append(f"{self.label} around")
        return await call() + 1

    def on_start(self, step: Step, attempt: int) -> None:
        self._calls.append(f"{self.label} start {attempt}")

    def on_success(self, step: Step, result: Any, attempt: int) -> None:
        self._calls.append(f"{self.label} success {result}")

    def on_failure(self, step: Step, exc: BaseException, attempt: int) -> None:
        self._calls.append(f"{self.label} failure {exc}")


@pytest.mark.parametrize("is_async", [False, True])
def test_a_step_policy_goes_around_and_is_told(is_async: bool) -> None:
    outer, inner = Recorder("a"), Recorder("b")
    calls = outer._calls
    inner._calls = calls

    @step(policies=[outer, inner])
    def plain() -> int:
        calls.append("body")
        return 1

    @step(policies=[outer, inner])
    async def waiting() -> int:
        await asyncio.sleep(0)
        calls.append("body")
        return 1

    assert Workflow(outputs=[waiting if is_async else plain]).run() == 3
    assert calls == [
        "a start 1",
        "b start 1",
        "a around",
        "b around",
        "body",
        "a success 3",
        "b success 3",
    ]


def test_a_step_policy_is_told_of_failures_and_may_have_no_opinion() -> None:
    recorder = Recorder()

    @step(policies=[recorder, RetryPolicy(2)])
    def flaky() -> int:
        raise ValueError("of no use")

    with pytest.raises(RunFailed):
        Workflow(outputs=[flaky]).run()
    assert recorder._calls.count("a failure of no use") == 2


class Decides(StepPolicy):
    name = "test_policies_decides"

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def on_failure(self, step: Step, exc: BaseException, attempt: int) -> Any:
        return self._answer if attempt < 3 else FailureDecision.FAIL


def run_deciding(*policies: StepPolicy) -> RunView:
    @step(policies=policies)
    def flaky() -> int:
        raise ValueError("of no use")

    @step
    def after(n: int | None = Depends(flaky)) -> int:
        raise ValueError("end")

    with pytest.raises(RunFailed) as caught:
        Workflow(outputs=[after]).run()
    assert isinstance(caught.value.run, RunView)
    return caught.value.run


@pytest.mark.parametrize(
    "answer",
    [
        FailureDecision.RETRY,
        "RETRY",
        (FailureDecision.RETRY, 0.001),
        PolicyDecision(decision=FailureDecision.RETRY, delay_seconds=0.001),
    ],
    ids=repr,
)
def test_on_failure_may_decide_to_retry_with_a_delay(answer: Any) -> None:
    assert run_deciding(Decides(answer)).steps["flaky"].attempt == 3


def test_on_failure_may_decide_to_fail_whatever_a_retry_policy_says() -> None:
    view = run_deciding(RetryPolicy(5), Decides(FailureDecision.FAIL))
    assert view.steps["flaky"].attempt == 1
    assert view.steps["flaky"].state is Status.FAILED


def test_on_failure_may_decide_to_skip() -> None:
    view = run_deciding(Decides(FailureDecision.SKIP))
    assert view.steps["flaky"].state is Status.SKIPPED
    assert view.failed_step == "after"


def test_the_first_policy_with_an_opinion_decides() -> None:
    view = run_deciding(Decides(None), Decides(FailureDecision.SKIP), Decides(FailureDecision.FAIL))
    assert view.steps["flaky"].state is Status.SKIPPED


@pytest.mark.parametrize("answer", ["MAYBE", ("RETRY", -1), (1, 2, 3)], ids=repr)
def test_what_is_no_decision_is_logged_and_counts_as_none(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert run_deciding(Decides(answer)).steps["flaky"].state is Status.FAILED
    assert "on_failure of policy 'test_policies_decides' failed" in caplog.text


def test_what_on_start_and_on_success_raise_fails_the_attempt() -> None:
    class Guard(StepPolicy):
        name = "test_policies_guard"

        def __init__(self, when: str) -> None:
            self.when = when

        def on_start(self, step: Step, attempt: int) -> None:
            if self.when == "start":
                raise PermissionError("not now")

        def on_success(self, step: Step, result: Any, attempt: int) -> None:
            if self.when == "success":
                raise PermissionError("not that")

    for when, said in (("start", "not now"), ("success", "not that")):
        with pytest.raises(RunFailed, match=f"PermissionError: {said}"):
            Workflow(outputs=[step(policies=[Guard(when)])(lambda: 1)]).run()


def test_a_policy_that_would_not_be_called_is_refused() -> None:
    class OnlySync(StepPolicy):
        name = "test_policies_only_sync"

        def execute(self, step: Step, call: Callable[[], Any]) -> Any:
            return call()

    class OnlyAsync(StepPolicy):
        name = "test_policies_only_async"

        async def execute_async(self, step: Step, call: Callable[[], Awaitable[Any]]) -> Any:
            return await call()

    @step(policies=[OnlySync()])
    async def waiting() -> int:
        return 1

    @step(policies=[OnlyAsync()])
    def plain() -> int:
        return 1

    with pytest.raises(
        PolicyError, match=r"'waiting' is async, and policy .* has execute but no execute_async"
    ):
        Workflow(outputs=[waiting])
    with pytest.raises(
        PolicyError, match=r"'plain' is a plain function, and .* has execute_async but no execute"
    ):
        Workflow(outputs=[plain])


def test_a_policy_is_registered_by_its_name_and_its_public_attributes_are_its_config() -> None:
    class Limit(StepPolicy):
        def __init__(self, most: int) -> None:
            self.most = most
            self._seen = 0

    assert Limit.name == "limit"
    spec = Limit(3).to_spec()
    assert spec.model_dump() == {"name": "limit", "config": {"most": 3}}
    assert policy_from_spec(spec) == Limit(3)
    assert repr(Limit(3)) == "Limit(most=3)"
    assert register_policy(Limit) is Limit


def test_a_name_that_another_class_has_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"policy name 'retry' of .*Mine is that of .*RetryPolicy"):

        class Mine(StepPolicy):
            name = "retry"


def test_a_config_that_is_not_json_is_named() -> None:
    class Odd(StepPolicy):
        name = "test_policies_odd"

        def __init__(self, what: object) -> None:
            self.what = what

    with pytest.raises(PolicyError, match="the config of policy 'test_policies_odd' is not JSON"):
        Workflow(outputs=[step(policies=[Odd(object())])(lambda: 1)])


# ---- attaching


class Watcher(WorkflowPolicy):
    name = "test_policies_watcher"

    def __init__(self) -> None:
        self._calls: list[str] = []

    def on_workflow_start(self, workflow: Workflow, inputs: Mapping[str, Any]) -> None:
        self._calls.append(f"start {workflow.workflow_id} {dict(inputs)}")

    def on_workflow_finished(self, workflow: Workflow, run: RunView) -> None:
        self._calls.append(f"finished {run.state}")

    def on_step_start(self, step: Step, attempt: int) -> None:
        self._calls.append(f"step start {attempt}")

    def on_step_success(self, step: Step, result: Any, attempt: int) -> None:
        self._calls.append(f"step success {result}")

    def on_step_failure(self, step: Step, exc: BaseException, attempt: int) -> None:
        self._calls.append(f"step failure {exc}")


def test_a_workflow_policy_is_told_of_the_run_and_of_each_step() -> None:
    @step(policies=[RetryPolicy(2)])
    def flaky(n: int, attempts: list[int]) -> int:
        if not seen:
            seen.append(1)
            raise ValueError("not yet")
        return n

    seen: list[int] = []
    watcher = Watcher()
    workflow = Workflow(outputs=[flaky], workflow_id="watched", policies=[watcher])
    assert workflow.run({"n": 1, "attempts": []}) == 1
    assert watcher._calls == [
        "start watched {'n': 1, 'attempts': []}",
        "step start 1",
        "step failure not yet",
        "step start 2",
        "step success 1",
        "finished SUCCEEDED",
    ]


def test_a_watcher_that_fails_at_a_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Clumsy(WorkflowPolicy):
        name = "test_policies_clumsy"

        def on_step_failure(self, step: Step, exc: BaseException, attempt: int) -> None:
            raise LookupError("where was it")

    @step
    def fails() -> int:
        raise ValueError("of no use")

    with pytest.raises(RunFailed, match="of no use"):
        Workflow(outputs=[fails], policies=[Clumsy()]).run()
    assert "where was it" in caplog.text


def test_what_on_workflow_start_raises_keeps_the_run_from_beginning() -> None:
    class Closed(WorkflowPolicy):
        name = "test_policies_closed"

        def on_workflow_start(self, workflow: Workflow, inputs: Mapping[str, Any]) -> None:
            raise PermissionError("closed")

    calls: list[int] = []
    with pytest.raises(PermissionError, match="closed"):
        Workflow(outputs=[lambda: calls.append(1)], policies=[Closed()]).run()
    assert calls == []


def test_policies_are_attached_to_steps_and_workflows() -> None:
    @step
    def one() -> int:
        return 1

    @step(policies=[RetryPolicy(9)])
    def two() -> int:
        return 2

    early = Workflow(outputs=[one])
    timeout = TimeoutPolicy(3)
    assert timeout.attach_to_step(one) is timeout
    assert early.to_schema().steps["one"].policies == []  # it was made before
    workflow = Workflow(outputs=[one, two])
    watcher = Watcher()
    assert watcher.attach_to_workflow(workflow) is watcher
    retry = RetryPolicy(2)
    assert retry.attach_to_workflow(workflow) is retry
    schema = workflow.to_schema()
    assert [policy.name for policy in schema.policies] == ["test_policies_watcher"]
    assert [policy.name for policy in schema.steps["one"].policies] == ["timeout", "retry"]
    assert schema.steps["one"].policies[1].config["max_retries"] == 2
    assert [policy.config["max_retries"] for policy in schema.steps["two"].policies] == [9]
    assert workflow.policies == (watcher, retry)


def test_step_policies_of_a_workflow_hold_for_every_step_that_has_none_of_the_name() -> None:
    @step
    def one() -> int:
        return 1

    @step(policies=[TimeoutPolicy(1)])
    def two() -> int:
        return 2

    steps = Workflow(outputs=[one, two], policies=[TimeoutPolicy(5)]).to_schema().steps
    assert [steps[name].policies[0].config["seconds"] for name in ("one", "two")] == [5, 1]


def test_what_is_no_policy_is_refused() -> None:
    with pytest.raises(PolicyError, match="3 is not a policy"):
        Workflow(outputs=[lambda: 1], policies=[3])  # type: ignore[list-item]  # what a user does by mistake
