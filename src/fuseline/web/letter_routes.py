"""What operators ask for: the steps that failed for good."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from fuseline.broker.base import Broker
from fuseline.model.status import DeadLetterReason, DeadLetterState
from fuseline.model.views import DeadLetterDetail, DeadLetterView, ReplayView
from fuseline.web.problems import documented


def letter_routes(broker: Broker) -> APIRouter:
    """Listing, showing, replaying and discarding dead letters."""
    router = APIRouter(tags=["dead letters"])

    @router.get("/dead-letters", responses=documented(422, 501, 503))
    def list_dead_letters(
        workflow_id: str | None = None,
        instance_id: str | None = None,
        reason: DeadLetterReason | None = None,
        state: DeadLetterState | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[str | None, Query(description="A dead letter's id, to page on.")] = None,
    ) -> list[DeadLetterView]:
        """Steps that failed for good, the latest first."""
        return broker.list_dead_letters(
            workflow_id=workflow_id,
            instance_id=instance_id,
            reason=reason,
            state=state,
            limit=limit,
            before=before,
        )

    @router.get("/dead-letters/{letter_id}", responses=documented(404, 501, 503))
    def get_dead_letter(letter_id: str) -> DeadLetterDetail:
        """A dead letter with its message."""
        return broker.get_dead_letter(letter_id)

    @router.post("/dead-letters/{letter_id}/replay", responses=documented(404, 409, 501, 503))
    def replay_dead_letter(letter_id: str) -> ReplayView:
        """Set its run going again at its step. Twice is once: `took_effect` says which one it was."""
        return broker.replay_dead_letter(letter_id)

    @router.delete("/dead-letters/{letter_id}", responses=documented(404, 409, 501, 503))
    def discard_dead_letter(letter_id: str) -> DeadLetterView:
        """Leave the step as it failed. The dead letter stays listed as discarded until its run is purged."""
        return broker.discard_dead_letter(letter_id)

    return router
