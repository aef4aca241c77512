"""What the routes take and answer, where it is not one of the models that every broker has."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fuseline.model.recognised import Definition
from fuseline.model.schema import MAX_ID_LENGTH


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RegisterRequest(_Body):
    """The workflow versions that a worker executes, and where it is."""

    workflows: list[Definition]
    host: str | None = None
    pid: int | None = None


class RegisterResponse(BaseModel):
    """The id to ask for steps with."""

    worker_id: str


class KeepAliveRequest(_Body):
    """A worker lives. `holds`: the [instance_id, step_name, attempt] that it works on; without it, all that it got."""

    worker_id: str
    holds: list[tuple[str, str, int]] | None = None


class DispatchRequest(_Body):
    """A run to begin: of `workflow`, which is registered if need be, or of one that is registered already.

    `instance_id` makes the request safe to repeat: twice the same is one run.
    """

    workflow: Definition | None = None
    workflow_id: str | None = None
    version: str | None = Field(
        default=None, description="With workflow_id; without it, the version registered last."
    )
    inputs: dict[str, Any] | None = None
    instance_id: str | None = Field(default=None, min_length=1, max_length=MAX_ID_LENGTH)

    @model_validator(mode="after")
    def _one_workflow(self) -> Self:
        if (self.workflow is None) == (self.workflow_id is None):
            raise ValueError("give either workflow (its definition) or workflow_id")
        if self.workflow is not None and self.version is not None:
            raise ValueError("version goes with workflow_id; a definition has its own")
        return self


class DispatchResponse(BaseModel):
    """The run's id."""

    instance_id: str


class Done(BaseModel):
    """It is done, and stays so."""

    ok: bool = True


class Ready(BaseModel):
    """The service answers, and so does what is behind it."""

    ready: bool = True


class FieldProblem(BaseModel):
    """One field that does not fit. `field` is the way to it: `body.workflow.steps`."""

    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details. `code` is the name of the error in every part of Fuseline."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    code: str
    errors: list[FieldProblem] | None = None
