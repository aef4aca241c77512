"""What travels between broker and worker. `(instance_id, step_name, attempt)` is the fencing key of both messages."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fuseline.model.status import Status


class Cause(StrEnum):
    """Why a step failed."""

    ERROR = "error"  # the body raised
    TIMEOUT = "timeout"  # it ran longer than its execution timeout
    EXPIRED = "expired"  # it waited in its queue longer than its expiry
    POISON = "poison"  # it took its worker down again and again
    INVALID = "invalid"  # its input or result did not fit (types, JSON, size)
    RUN_TIMEOUT = "run_timeout"  # the run's deadline passed


PROCESS_DIED: Final = "WorkerProcessDied"
"""`StepError.type` where the step took down the process that executed it, and the worker lived to tell."""

ASSIGNMENT_REJECTED: Final = "AssignmentRejected"
"""The error's type where a worker refused an assignment."""


class StepError(BaseModel):
    """Why an attempt failed. `types` holds the exception's class names, most special first, for `retry_on`."""

    model_config = ConfigDict(frozen=True)

    type: str
    message: str = ""
    traceback: str | None = None
    cause: Cause = Cause.ERROR
    types: list[str] = Field(default_factory=list)


class FailureDecision(StrEnum):
    """What a custom policy wants done about a failed attempt."""

    RETRY = "RETRY"
    FAIL = "FAIL"
    SKIP = "SKIP"


class PolicyDecision(BaseModel):
    """A custom policy's decision, carried by the report; `delay_seconds` goes with RETRY (30 days at most count)."""

    model_config = ConfigDict(frozen=True)

    decision: FailureDecision
    delay_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class _Message(BaseModel):
    @classmethod
    def of_checked(cls, values: dict[str, Any]) -> Self:
        """What `model_construct` makes of a value for each field, in a quarter of the time; `values` becomes its own."""
        made = cls.__new__(cls)
        put = object.__setattr__
        put(made, "__dict__", values)
        put(made, "__pydantic_fields_set__", _FIELDS[cls])
        put(made, "__pydantic_extra__", None)
        put(made, "__pydantic_private__", None)
        return made


class StepAssignment(_Message):
    """One attempt of one step, handed to a worker.

    `payload` is `{"workflow_inputs": {...}, "results": {step: value}}`, and for a step with OR groups also `"winners":
    {parameter: step}`; `assigned_at` and `expires_at` are seconds since
    the epoch; `timeout_seconds` is the execution timeout, None without one. `replays` is how often an operator had set
    the run going again when this attempt was queued.
    """

    model_config = ConfigDict(frozen=True)

    workflow_id: str
    workflow_version: str = "1"
    instance_id: str
    step_name: str
    attempt: int = Field(default=1, ge=1)
    payload: dict[str, Any] = Field(default_factory=dict)
    assigned_at: float
    expires_at: float
    timeout_seconds: float | None = None
    replays: int = Field(default=0, ge=0)


class StepReport(_Message):
    """How an attempt ended.

    `state` is SUCCEEDED, FAILED, SKIPPED (by the step's own condition) or CANCELLED. `action` names the edge to take;
    without it a string `result` that names an action does, else `default`. A caller that leaves out `attempt` means the
    first.
    """

    model_config = ConfigDict(frozen=True)

    workflow_id: str
    instance_id: str
    step_name: str
    state: Status
    result: Any = None
    attempt: int = Field(default=1, ge=1)
    action: str | None = None
    error: StepError | None = None
    decision: PolicyDecision | None = None
    worker_id: str | None = None
    started_at: float | None = Field(default=None, allow_inf_nan=False)
    finished_at: float | None = Field(default=None, allow_inf_nan=False)

    @field_validator("state")
    @classmethod
    def _finished(cls, state: Status) -> Status:
        if not state.is_terminal:
            raise ValueError(
                f"a report says how a step ended: SUCCEEDED, FAILED, SKIPPED or CANCELLED, not {state}"
            )
        return state


_FIELDS: Final[dict[type[BaseModel], set[str]]] = {
    one: set(one.model_fields) for one in (StepAssignment, StepReport)
}
"""Shared by all that have a value for each: what is frozen adds none, and a set of its own would be larger than it is."""
