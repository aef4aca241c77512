"""Every error as RFC 9457 problem details, and what the documentation says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fuseline.errors import (
    CallerError,
    FuselineError,
    InvalidInputsError,
    InvalidMessageError,
    InvalidSchemaError,
    MessageTooLargeError,
    NotReplayableError,
    PolicyError,
    RetryableError,
    SchemaConflictError,
    StaleReportError,
    UnknownDeadLetterError,
    UnknownRunError,
    UnknownStepError,
    UnknownWorkerError,
    UnknownWorkflowError,
    UnsupportedError,
)
from fuseline.web.models import FieldProblem, Problem

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1

_STATUSES: tuple[tuple[type[FuselineError], int], ...] = (
    (UnknownWorkerError, 404),
    (UnknownRunError, 404),
    (UnknownStepError, 404),
    (UnknownDeadLetterError, 404),
    (UnknownWorkflowError, 404),
    (SchemaConflictError, 409),
    (StaleReportError, 409),
    (NotReplayableError, 409),
    (MessageTooLargeError, 413),
    (InvalidInputsError, 422),
    (InvalidMessageError, 422),
    (InvalidSchemaError, 422),
    (PolicyError, 422),
    (UnsupportedError, 501),
    (CallerError, 400),
    (RetryableError, 503),
)
_CODES = {404: "not_found", 405: "method_not_allowed", 413: MessageTooLargeError.code}

_MEANINGS = {
    400: "The request cannot be read.",
    404: "No such worker, run, workflow or dead letter.",
    409: "It contradicts what is recorded: another graph under this version, an attempt that is over, "
    "a dead letter that cannot be replayed.",
    413: "The body, an input or a result is over the limit.",
    422: "A field does not fit; `detail` and `errors` name it.",
    501: "The broker behind this service does not offer it.",
    503: "What is behind this service is away: try again after `Retry-After` seconds.",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, for OpenAPI."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {"description": _MEANINGS[status], "content": {MEDIA_TYPE: schema}} for status in statuses
    }


def status_of(error: FuselineError) -> int:
    """The HTTP status of an error; 500 for one that only an operator can do something about."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def problem(
    status: int,
    code: str,
    detail: str | None,
    errors: Iterable[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The response that tells of an error."""
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        errors=None if errors is None else list(errors),
    )
    return JSONResponse(
        body.model_dump(exclude_none=True),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers=None if headers is None else dict(headers),
    )


def install(app: FastAPI) -> None:
    """Answer every error of `app` that is somebody's, not ours, with a problem."""
    app.add_exception_handler(FuselineError, _fuseline_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)


async def _fuseline_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, FuselineError)
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        raise error  # for an operator: to the log, by way of `FailureGuard`
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if isinstance(error, RetryableError) else None
    return problem(status, error.code, str(error), headers=headers)


async def _invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    errors = [FieldProblem(field=_field(one["loc"]), message=_message(one)) for one in found]
    # What a model of ours raised keeps its name: a definition that contradicts itself is `invalid_schema`.
    causes = [(one.get("ctx") or {}).get("error") for one in found]
    code = next((c.code for c in causes if isinstance(c, FuselineError)), InvalidMessageError.code)
    return problem(422, code, f"{errors[0].field}: {errors[0].message}", errors)


def _field(place: Iterable[int | str]) -> str:
    return ".".join(str(part) for part in place)


def _message(one: Mapping[str, Any]) -> str:
    cause = (one.get("ctx") or {}).get("error")
    return str(cause) if isinstance(cause, ValueError) else str(one["msg"])


async def _http_error(_request: Request, error: Exception) -> Response:
    """What the router or the framework refuses."""
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, CallerError.code)
    return problem(error.status_code, code, error.detail, headers=error.headers)
