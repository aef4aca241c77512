"""An HTTP service's refusal (RFC 9457 problem details) as the exception that it was there."""

from __future__ import annotations

from typing import NoReturn

from fuseline.amqp.codec import decode
from fuseline.errors import (
    ERRORS_BY_CODE,
    BrokerUnavailableError,
    CallerError,
    InvalidMessageError,
    error_from_code,
)


def raise_problem(status: int, body: bytes, request: str) -> NoReturn:
    """Raise the error in `body`; `request` says what was asked for.

    A proxy answers in pages of its own, and a service that failed says nothing of the inside: with a status from 500 up
    that is a `BrokerUnavailableError`, else a `CallerError`.
    """
    try:
        problem = decode(body)
    except InvalidMessageError:
        problem = None
    if isinstance(problem, dict):
        code, detail = str(problem.get("code")), str(problem.get("detail") or problem.get("title"))
    else:
        code, detail = "", f"HTTP {status}"
    if code in ERRORS_BY_CODE:
        raise error_from_code(code, detail)
    kind = BrokerUnavailableError if status >= 500 else CallerError
    raise kind(f"{request}: {detail} (HTTP {status})")
