"""What those who dispatch and watch runs ask for."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from starlette.responses import Response as PlainResponse

from fuseline.broker.base import Broker
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import RunStatus
from fuseline.model.views import RunSummary, RunView, WorkflowView
from fuseline.web.models import DispatchRequest, DispatchResponse, Done
from fuseline.web.problems import documented
from fuseline.web.waiting import MAX_WAIT_SECONDS, Waiting


def run_routes(broker: Broker) -> APIRouter:
    """Dispatching, watching and cancelling runs."""
    router = APIRouter(tags=["runs"])
    takes_instance_id = "instance_id" in inspect.signature(broker.dispatch_workflow).parameters
    waiting = Waiting(broker)

    @router.post("/workflow/dispatch", responses=documented(404, 409, 413, 422, 501, 503))
    def dispatch(request: DispatchRequest, response: Response) -> DispatchResponse:
        """Begin a run. When this answers, the run is durable."""
        workflow = request.workflow
        if workflow is None:
            assert request.workflow_id is not None
            workflow = broker.get_workflow(request.workflow_id, request.version)
        extra: dict[str, Any] = {}
        if takes_instance_id and request.instance_id is not None:
            extra["instance_id"] = request.instance_id
        return DispatchResponse(instance_id=broker.dispatch_workflow(workflow, request.inputs, **extra))

    @router.get("/runs", responses=documented(422, 501, 503))
    def list_runs(
        workflow_id: str | None = None,
        state: RunStatus | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[str | None, Query(description="An instance id, to page on from.")] = None,
    ) -> list[RunSummary]:
        """Runs, newest first."""
        return broker.list_runs(workflow_id=workflow_id, state=state, limit=limit, before=before)

    @router.get(
        "/runs/{instance_id:path}/wait",
        response_model=RunView,
        responses={204: {"description": "The run goes on: ask again."}, **documented(404, 422, 501, 503)},
    )
    async def wait(
        instance_id: str,
        timeout_seconds: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 20.0,
    ) -> RunView | Response:
        """The run when it has ended, or after `timeout_seconds` an answer without a body."""
        run = await waiting.wait(instance_id, timeout_seconds)
        return PlainResponse(status_code=204) if run is None else run

    @router.get("/runs/{instance_id:path}", responses=documented(404, 501, 503))
    def get_run(instance_id: str) -> RunView:
        """The run with its steps."""
        return broker.get_run(instance_id)

    @router.post("/runs/{instance_id:path}/cancel", responses=documented(404, 409, 501, 503))
    def cancel(instance_id: str) -> Done:
        """End a run as CANCELLED; nothing happens to one that is cancelled already."""
        broker.cancel_run(instance_id)
        return Done()

    @router.get("/workflows", responses=documented(501, 503), tags=["workflows"])
    def list_workflows() -> list[WorkflowView]:
        """The registered workflow versions."""
        return broker.list_workflows()

    @router.get("/workflow/definition", responses=documented(404, 422, 501, 503), tags=["workflows"])
    def get_definition(workflow_id: str, version: str | None = None) -> WorkflowSchema:
        """A registered workflow, by ids of any characters; without `version` the one registered last."""
        return broker.get_workflow(workflow_id, version)

    @router.get("/workflows/{workflow_id}/{version}", responses=documented(404, 501, 503), tags=["workflows"])
    def get_workflow(workflow_id: str, version: str) -> WorkflowSchema:
        """A registered workflow version."""
        return broker.get_workflow(workflow_id, version)

    return router
