"""What workers ask for."""

from __future__ import annotations

import inspect
from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.responses import Response as PlainResponse

from fuseline.broker.base import Broker
from fuseline.model.messages import StepAssignment, StepReport
from fuseline.model.views import WorkerView
from fuseline.web.models import Done, KeepAliveRequest, RegisterRequest, RegisterResponse
from fuseline.web.problems import documented

WorkerId = Annotated[str, Query(min_length=1, description="As /worker/register answered it.")]


def worker_routes(broker: Broker) -> APIRouter:
    """The routes of workers. They are plain functions: FastAPI runs them on threads, and no call blocks another."""
    router = APIRouter(tags=["workers"])
    takes_holds = "holds" in inspect.signature(broker.keep_alive).parameters

    @router.post("/worker/register", responses=documented(409, 413, 422, 503))
    def register(request: RegisterRequest) -> RegisterResponse:
        """Make known a worker that executes these workflow versions."""
        return RegisterResponse(worker_id=broker.register_worker(request.workflows))

    @router.post("/worker/keep-alive", responses=documented(404, 422, 503))
    def keep_alive(request: KeepAliveRequest) -> Done:
        """Say that the worker lives: what it holds is carried on."""
        if takes_holds and request.holds is not None:
            broker.keep_alive(request.worker_id, holds=request.holds)  # type: ignore[call-arg]  # looked up above
        else:
            broker.keep_alive(request.worker_id)
        return Done()

    @router.get(
        "/workflow/step",
        response_model=StepAssignment,
        responses={
            204: {"description": "There is no step for this worker now."},
            **documented(404, 422, 503),
        },
    )
    def get_step(worker_id: WorkerId) -> StepAssignment | Response:
        """The next step that this worker can execute. It holds it until `expires_at`, or as long as it keeps alive."""
        assignment = broker.get_step(worker_id)
        return PlainResponse(status_code=204) if assignment is None else assignment

    @router.post("/workflow/step", responses=documented(404, 409, 413, 422, 503))
    def report_step(worker_id: WorkerId, report: StepReport) -> Done:
        """Record how an attempt ended. The same report twice is fine; one of an attempt that is over is refused."""
        broker.report_step(worker_id, report)
        return Done()

    @router.get("/workers", responses=documented(501, 503))
    def list_workers() -> list[WorkerView]:
        """The workers that registered and were not silent for too long."""
        return broker.list_workers()

    return router
