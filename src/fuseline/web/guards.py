"""What stands before the routes: no body larger than allowed is ever in memory (P6), and no failure tells of the inside."""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fuseline.web.problems import problem

log = logging.getLogger(__name__)


class FailureGuard:
    """Answers what nobody expected with 500, and writes the trace to the log.

    Starlette's own guard also hands the exception on, upon which uvicorn drops the connection while the client takes it
    for one that it may use again.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noticed(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noticed)
        except Exception:
            if has_begun or scope["type"] != "http":
                raise
            log.exception("%s %s failed", scope["method"], scope["path"])
            answer = problem(500, "internal_error", "the service failed; its log says why")
            await answer(scope, receive, send)


class BodyLimit:
    """Refuses requests whose body has more than `max_bytes`, announced or not."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"")
        if announced.isdigit() and int(announced) > self._max_bytes:
            await problem(413, "message_too_large", self._refusal())(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._max_bytes:
                    raise HTTPException(413, self._refusal())
            return message

        await self._app(scope, counted, send)

    def _refusal(self) -> str:
        return f"the body is over {self._max_bytes} bytes"
