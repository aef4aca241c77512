"""The bodies of our messages that are no step assignment or report, and how every body is read.

`read` is the one way from bytes to a model: an undecodable message is an `InvalidMessageError` that names the field.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fuseline.amqp.codec import decode
from fuseline.errors import FuselineError, InvalidMessageError, error_from_code

Model = TypeVar("Model", bound=BaseModel)

Attempt = Annotated[int, Field(ge=1)]
Moment = Annotated[float, Field(allow_inf_nan=False)]
# PostgreSQL can store every text but one with a NUL, and what has one is nobody's name.
Name = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]


class _Wire(BaseModel):
    # Unknown fields are ignored: a newer sender may say more.
    model_config = ConfigDict(frozen=True)


class Claim(_Wire):
    """A worker goes on with this attempt under a lease, and acknowledges its delivery (DESIGN 5, holding a step).

    `released`: the opposite: the worker gives back, unfinished, an attempt that it holds by a lease (it drains).
    """

    workflow_id: Name
    instance_id: Name
    step_name: Name
    attempt: Attempt = 1
    worker_id: Name
    released: bool = False


class Heartbeat(_Wire):
    """One beat of a worker. `leases` are the [instance_id, step_name, attempt] that it holds.

    `workflows` are the [workflow_id, version] that it works for. The message's `reply_to` is the worker's address for
    control notices.
    """

    worker_id: Name
    workflows: list[tuple[Name, Name]] = Field(default_factory=list)
    leases: list[tuple[Name, Name, Attempt]] = Field(default_factory=list)
    host: str | None = None
    pid: int | None = None
    sent_at: Moment


class Command(_Wire):
    """A request: register, dispatch, cancel, ... with its arguments by name."""

    name: Name
    args: dict[str, Any] = Field(default_factory=dict)


class ReplyError(_Wire):
    """Why a command failed: `code` is `FuselineError.code`."""

    code: Name
    message: str = ""


class Reply(_Wire):
    """The answer to a command: a `result` when `ok`, else an `error`."""

    ok: bool
    result: Any = None
    error: ReplyError | None = None

    @model_validator(mode="after")
    def _either(self) -> Reply:
        if self.ok and self.error is not None:
            raise ValueError("a reply that is ok has no error")
        if not self.ok and self.error is None:
            raise ValueError("a reply that is not ok says its error")
        return self

    @classmethod
    def failure(cls, error: FuselineError) -> Reply:
        """The reply that carries `error`."""
        return cls(ok=False, error=ReplyError(code=error.code, message=str(error)))

    def value(self) -> Any:
        """The result. Raises the error that the other side met, as what it was there."""
        if self.error is not None:
            raise error_from_code(self.error.code, self.error.message)
        return self.result


class ControlKind(StrEnum):
    """What a worker is told."""

    STOP = "stop"  # stop these attempts: cancelled, or held by somebody else
    DRAIN = "drain"  # take no more steps, finish what you have, leave


class ControlNotice(_Wire):
    """What a coordinator tells a worker.

    `attempts` are [step_name, attempt] of run `instance_id`; None is all of that run but for the steps named in `spare`
    (clean-up, which goes on in a failing run). That is about attempts whose assignment has no higher `replays`: the run may
    have been set going again since. `worker_id` names the worker that is meant; None is whoever reads it. With
    `continued_from` ([step_name, attempt]) what a worker went on with from there by itself is meant, and nothing else.
    """

    kind: ControlKind
    instance_id: Name | None = None
    attempts: list[tuple[Name, Attempt]] | None = None
    spare: list[Name] = Field(default_factory=list)
    worker_id: Name | None = None
    replays: Annotated[int, Field(ge=0)] = 0
    continued_from: tuple[Name, Attempt] | None = None

    @model_validator(mode="after")
    def _which(self) -> ControlNotice:
        if self.kind is ControlKind.STOP and self.instance_id is None:
            raise ValueError("instance_id: a stop notice names a run")
        return self


class Fusion(_Wire):
    """What a report says about step fusion, beside the report itself.

    `continues_with` is the step that its worker goes on with as soon as the report is confirmed, `continued_from` the
    [step_name, attempt] that it went on from.
    """

    continues_with: Name | None = None
    continued_from: tuple[Name, Attempt] | None = None


def report_id(instance_id: str, step_name: str, attempt: int, *, is_fused: bool) -> str:
    """The message id of a report. `is_fused`: of an attempt that its worker went on to by itself."""
    return f"{instance_id}/{step_name}/{attempt}/{'fused' if is_fused else 'report'}"


def read(model: type[Model], body: bytes) -> Model:
    """The message in `body`. Raises `InvalidMessageError` that names the first wrong field."""
    return as_model(model, decode(body))


def as_model(model: type[Model], value: Any) -> Model:
    """The message of a decoded body. Raises likewise."""
    if not isinstance(value, dict):
        raise InvalidMessageError(f"a {model.__name__} is a JSON object, not {type(value).__name__}")
    try:
        # JSON has neither tuples nor enums: lax where strictness would refuse those, yet no number out of a string.
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or model.__name__
        raise InvalidMessageError(f"{model.__name__}: {place}: {first['msg']}") from error
