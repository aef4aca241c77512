"""The HTTP service as an ASGI application, over any broker."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI

from fuseline.broker.base import Broker
from fuseline.errors import UnsupportedError
from fuseline.web import problems
from fuseline.web.guards import BodyLimit, FailureGuard
from fuseline.web.letter_routes import letter_routes
from fuseline.web.models import Problem, Ready
from fuseline.web.problems import documented
from fuseline.web.run_routes import run_routes
from fuseline.web.worker_routes import worker_routes

DESCRIPTION = """Workers register, ask for steps and report them; applications dispatch runs and watch them.
Every error is an RFC 9457 problem (`application/problem+json`) whose `code` names it."""


def create_app(broker: Broker, *, max_body_bytes: int = 32 * 1024 * 1024) -> FastAPI:
    """The service over `broker`, which the caller closes.

    Five methods of the broker are enough; routes that need another answer 501. A body over `max_body_bytes` is refused
    with 413 before it is read.
    """
    app = FastAPI(title="Fuseline", version=version("fuseline"), description=DESCRIPTION)
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes)
    app.add_middleware(FailureGuard)  # around the other one
    problems.install(app)
    app.include_router(worker_routes(broker))
    app.include_router(run_routes(broker))
    app.include_router(letter_routes(broker))
    app.include_router(_service_routes(broker))
    _document_problems(app)
    return app


def _service_routes(broker: Broker) -> APIRouter:
    router = APIRouter(tags=["service"])

    @router.get("/status", responses=documented(501, 503))
    def status() -> dict[str, Any]:
        """How it goes: runs by state, workers, and what else the broker tells."""
        return dict(broker.status())

    @router.get("/livez")
    async def livez() -> Ready:
        """The process answers."""
        return Ready()

    @router.get("/readyz", responses=documented(503))
    def readyz() -> Ready:
        """What is behind the service answers too."""
        with suppress(UnsupportedError):  # a broker of somebody's own, which has nothing to ask
            broker.status()
        return Ready()

    return router


def _document_problems(app: FastAPI) -> None:
    """OpenAPI has the `Problem` that the routes refer to, and 422 as what it is here."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generated()
            schemas = document["components"]["schemas"]
            inner = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= inner.pop("$defs", {})
            schemas["Problem"] = inner
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for operations in document["paths"].values():
                for operation in operations.values():
                    stated = operation["responses"].get("422", {}).get("content", {})
                    if "application/json" in stated:
                        operation["responses"]["422"] = documented(422)[422]
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to change the document
