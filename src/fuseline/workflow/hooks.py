"""What goes around a step's body: hooks of its class, and policies, looked up once when a workflow is made."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fuseline.errors import PolicyError
from fuseline.model.messages import PolicyDecision
from fuseline.workflow.policies import Policy, StepPolicy, WorkflowPolicy, decision_of
from fuseline.workflow.step import Step

log = logging.getLogger(__name__)

_CLASS_HOOKS = ("before_all", "setup", "teardown", "after_all")


@dataclass(frozen=True, slots=True)
class Hooks:
    """Only what somebody overrode, so that a plain function is called without detours."""

    is_async: bool
    has_class_hooks: bool
    around: tuple[StepPolicy, ...]
    on_start: tuple[StepPolicy, ...]
    on_success: tuple[StepPolicy, ...]
    on_failure: tuple[StepPolicy, ...]
    on_step_start: tuple[WorkflowPolicy, ...]
    on_step_success: tuple[WorkflowPolicy, ...]
    on_step_failure: tuple[WorkflowPolicy, ...]

    @property
    def are_none(self) -> bool:
        """Whether nothing goes around an attempt that succeeds."""
        return not (
            self.has_class_hooks
            or self.around
            or self.on_start
            or self.on_success
            or self.on_step_start
            or self.on_step_success
        )

    def start(self, step: Step, attempt: int) -> None:
        """Before an attempt."""
        for watcher in self.on_step_start:
            watcher.on_step_start(step, attempt)
        for policy in self.on_start:
            policy.on_start(step, attempt)

    def succeed(self, step: Step, result: Any, attempt: int) -> None:
        """After one that succeeded."""
        for policy in self.on_success:
            policy.on_success(step, result, attempt)
        for watcher in self.on_step_success:
            watcher.on_step_success(step, result, attempt)

    def fail(self, step: Step, error: BaseException, attempt: int) -> PolicyDecision | None:
        """After one that failed: the first policy's opinion. A policy that fails itself has none; that is logged."""
        for watcher in self.on_step_failure:
            try:
                watcher.on_step_failure(step, error, attempt)
            except Exception:
                log.exception("on_step_failure of policy %r failed", watcher.name)
        for policy in self.on_failure:
            try:
                decision = decision_of(policy.on_failure(step, error, attempt), policy)
            except Exception:
                log.exception("on_failure of policy %r failed", policy.name)
            else:
                if decision is not None:
                    return decision
        return None


def hooks_of(
    step: Step,
    name: str,
    policies: Sequence[StepPolicy],
    workflow_policies: Iterable[WorkflowPolicy],
    conditions: Iterable[Callable[..., Any]],
) -> Hooks:
    """Read them. Raises `PolicyError` when a policy has only the twin that this step would not call."""
    overridden = partial(_overrides, StepPolicy)
    watching = partial(_overrides, WorkflowPolicy)
    class_hooks = [hook for hook in _CLASS_HOOKS if getattr(type(step), hook) is not getattr(Step, hook)]
    is_async = (
        is_coroutine_function(step.body)
        or any(is_coroutine_function(getattr(step, hook)) for hook in class_hooks)
        or any(is_coroutine_function(condition) for condition in conditions)
    )
    mine, other = ("execute_async", "execute") if is_async else ("execute", "execute_async")
    for policy in policies:
        if overridden(other, policy) and not overridden(mine, policy):
            kind = "async" if is_async else "a plain function"
            raise PolicyError(
                f"step {name!r} is {kind}, and policy {policy.name!r} has {other} but no {mine}"
            )
    watchers = list(workflow_policies)
    return Hooks(
        is_async=is_async,
        has_class_hooks=bool(class_hooks),
        around=tuple(one for one in policies if overridden(mine, one)),
        on_start=tuple(one for one in policies if overridden("on_start", one)),
        on_success=tuple(one for one in policies if overridden("on_success", one)),
        on_failure=tuple(one for one in policies if overridden("on_failure", one)),
        on_step_start=tuple(one for one in watchers if watching("on_step_start", one)),
        on_step_success=tuple(one for one in watchers if watching("on_step_success", one)),
        on_step_failure=tuple(one for one in watchers if watching("on_step_failure", one)),
    )


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """True for `async def`, also behind `functools.partial`, and for objects whose `__call__` is one."""
    if isinstance(function, partial):
        return is_coroutine_function(function.func)
    if inspect.iscoroutinefunction(function):
        return True
    return not inspect.isroutine(function) and inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - the method is wanted, not whether there is one
    )


def _overrides(base: type[Policy], method: str, policy: Policy) -> bool:
    return getattr(type(policy), method) is not getattr(base, method)
