"""The policies that come with Fuseline. The engine reads their data: names and keys here are what it looks for."""

from __future__ import annotations

import builtins
import math
from collections.abc import Iterable
from typing import Any, TypeAlias

from fuseline.errors import PolicyError
from fuseline.model.status import Trigger
from fuseline.workflow.policies import StepPolicy, WorkflowPolicy

Errors: TypeAlias = type[BaseException] | str | Iterable[type[BaseException] | str]
"""Exception classes, or their names: `ValueError`, or `module.ValueError`."""


class RetryPolicy(StepPolicy):
    """Try again after a failure.

    `max_retries` counts attempts in all, the first included. The n-th pause is `wait * backoff ** (n - 1)` seconds, at
    most `max_wait`; `jitter` (0 to 1) takes up to that share off it, so that what failed together does not come back
    together. With `retry_on` only these errors are tried again, and those of `no_retry_on` never: exception classes, or
    their names. A value that does not fit its parameter, and a result that is not JSON, are not tried again.
    """

    name = "retry"

    def __init__(
        self,
        max_retries: int = 3,
        wait: float = 0.0,
        backoff: float = 1.0,
        max_wait: float | None = None,
        jitter: float = 0.0,
        retry_on: Errors = (),
        no_retry_on: Errors = (),
    ) -> None:
        if not _is_whole(max_retries) or max_retries < 1:
            raise PolicyError(f"RetryPolicy: max_retries is a number of attempts from 1, not {max_retries!r}")
        self.max_retries = max_retries
        self.wait = _number("RetryPolicy", "wait", wait, 0.0, math.inf)
        self.backoff = _number("RetryPolicy", "backoff", backoff, 1.0, 1000.0)
        self.max_wait = (
            None if max_wait is None else _number("RetryPolicy", "max_wait", max_wait, 0.0, math.inf)
        )
        self.jitter = _number("RetryPolicy", "jitter", jitter, 0.0, 1.0)
        self.retry_on = _names("retry_on", retry_on)
        self.no_retry_on = _names("no_retry_on", no_retry_on)

    def config(self) -> dict[str, Any]:
        config = super().config()
        return {key: value for key, value in config.items() if value is not None}


class TimeoutPolicy(StepPolicy):
    """How long an attempt may run. A coroutine is cancelled; a plain function is not waited for any longer."""

    name = "timeout"

    def __init__(self, seconds: float) -> None:
        self.seconds = _seconds("TimeoutPolicy", seconds)


StepTimeoutPolicy = TimeoutPolicy


class ExpiryPolicy(StepPolicy):
    """How long an assignment may wait for somebody who takes it."""

    name = "expiry"

    def __init__(self, seconds: float) -> None:
        self.seconds = _seconds("ExpiryPolicy", seconds)


class TriggerPolicy(StepPolicy):
    """When a step starts: `all_success` (default), `all_done`, `one_success`, `one_failed`."""

    name = "trigger"

    def __init__(self, rule: str | Trigger) -> None:
        try:
            self.rule = Trigger(rule).value
        except ValueError:
            raise PolicyError(
                f"TriggerPolicy: rule {rule!r} is unknown (known: {', '.join(Trigger)})"
            ) from None


class FusionPolicy(StepPolicy):
    """Whether a worker may go on with the step at once, after the only step that it requires (step fusion).

    It may, where `FUSELINE_FUSION_HOPS` says so and nothing else does. As a policy of a workflow it is one of all its
    steps.
    """

    name = "fusion"

    def __init__(self, enabled: bool) -> None:
        if not isinstance(enabled, bool):
            raise PolicyError(f"FusionPolicy: enabled is True or False, not {enabled!r}")
        self.enabled = enabled


class WorkflowTimeoutPolicy(WorkflowPolicy):
    """How long a run may take, from its dispatch."""

    name = "workflow_timeout"

    def __init__(self, seconds: float) -> None:
        self.seconds = _seconds("WorkflowTimeoutPolicy", seconds)


def _seconds(where: str, value: object) -> float:
    seconds = _number(where, "seconds", value, 0.0, 1e10)
    if seconds == 0:
        raise PolicyError(f"{where}: seconds is more than 0")
    return seconds


def _number(where: str, name: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        most = "" if math.isinf(high) else f" to {high:g}"
        raise PolicyError(f"{where}: {name} is a number from {low:g}{most}, not {value!r}")
    if math.isinf(value):
        raise PolicyError(f"{where}: {name} is finite")
    return value


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _names(field: str, errors: Errors) -> list[str]:
    if isinstance(errors, str | type):
        errors = [errors]
    return [_name(field, error) for error in errors]


def _name(field: str, error: object) -> str:
    if isinstance(error, str) and error:
        return error
    if isinstance(error, type) and issubclass(error, BaseException):
        # A module may have another name in another process (a script, a file that a worker loads), so the class's name
        # alone says it, except where that would mean a builtin.
        builtin = getattr(builtins, error.__name__, error)
        return error.__name__ if builtin is error else f"{error.__module__}.{error.__qualname__}"
    raise PolicyError(f"RetryPolicy: {field} holds exception classes or their names, not {error!r}")
