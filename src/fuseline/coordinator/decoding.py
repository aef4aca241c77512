"""From a delivery to an event. What cannot be read or placed raises `InvalidMessageError` and is parked."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.tolerant import UNREADABLE
from fuseline.amqp.topology import Topology
from fuseline.amqp.wire import Attempt, Claim, Fusion, Name, as_model, read, report_id
from fuseline.engine.events import StepClaimed, StepExpired, StepPoisoned, StepReleased, StepReported
from fuseline.errors import InvalidMessageError
from fuseline.ledger import Occurrence
from fuseline.model.messages import ASSIGNMENT_REJECTED, Cause, StepAssignment, StepError, StepReport
from fuseline.model.status import Status

_NO_FUSION: Final = Fusion()


class _Named(BaseModel):
    """What is left of a report that cannot be read: which attempt it speaks of."""

    instance_id: Name
    step_name: Name
    attempt: Attempt = 1


def read_report(delivery: Delivery, topology: Topology) -> Occurrence:
    """A report or a claim.

    The exchange that a message came through is set by the server and guarded by its permissions, so it says for which
    workflow the sender may speak; the body must agree with it.
    """
    headers = delivery.properties.headers
    if headers and UNREADABLE in headers:
        raise InvalidMessageError(f"its headers cannot be read: {headers[UNREADABLE]!s}")
    if delivery.properties.type == codec.CLAIM:
        claim = read(Claim, delivery.body)
        _check_exchange(delivery, topology, claim.workflow_id)
        if claim.released:
            released = StepReleased(
                claim.step_name, claim.attempt, claim.worker_id, redelivered=delivery.redelivered
            )
            return Occurrence(claim.instance_id, released, claim.workflow_id)
        claimed = StepClaimed(claim.step_name, claim.attempt, claim.worker_id)
        return Occurrence(claim.instance_id, claimed, claim.workflow_id)
    if delivery.properties.type not in (codec.REPORT, None):
        raise InvalidMessageError(f"type {delivery.properties.type!r} is neither a report nor a claim")
    value = codec.parse(delivery.body)
    try:
        report = as_model(StepReport, value)
    except InvalidMessageError:
        codec.refuse_infinity(value)  # that it is no JSON comes before what is wrong with the report
        raise
    codec.refuse_infinity(report.result, "result")  # in what else is a number, the model sees to that
    _check_exchange(delivery, topology, report.workflow_id)
    is_fused = "continues_with" in value or "continued_from" in value
    said = as_model(Fusion, value) if is_fused else _NO_FUSION
    event = reported(report, said, redelivered=delivery.redelivered)
    return Occurrence(report.instance_id, event, report.workflow_id)


def by_itself(delivery: Delivery, what: Occurrence) -> Delivery:
    """The delivery of a report such that it can travel alone: one out of several has no id yet."""
    event = what.event
    if delivery.properties.message_id is None and isinstance(event, StepReported):
        is_fused = event.continued_from is not None
        delivery.properties = copy.copy(delivery.properties)
        delivery.properties.correlation_id = what.instance_id
        delivery.properties.message_id = report_id(
            what.instance_id, event.step, event.attempt, is_fused=is_fused
        )
    return delivery


def read_spoilt_report(
    delivery: Delivery, topology: Topology, reason: InvalidMessageError
) -> Occurrence | None:
    """The failure of the attempt that a report which cannot be read speaks of; None when that cannot be told.

    Its worker believes to have reported and has let its delivery go, so that nothing else would end the attempt. What
    names it may stand in the body or around it (`correlation_id`, the headers `step_name` and `attempt`).
    """
    properties = delivery.properties
    if properties.type not in (codec.REPORT, None):
        return None
    said = {"instance_id": properties.correlation_id, **(properties.headers or {})}
    try:
        body = codec.decode(delivery.body)
    except InvalidMessageError:
        body = None
    if isinstance(body, dict):
        said |= body
    workflow_id = said.get("workflow_id") or topology.workflow_of_reports(delivery.exchange)
    if not isinstance(workflow_id, str) or delivery.exchange != topology.reports_exchange(workflow_id):
        return None
    try:
        named = _Named.model_validate(said)
    except ValidationError:
        return None
    holder = said.get("worker_id")
    error = StepError(
        type="InvalidReport", message=f"the report of it cannot be read: {reason}", cause=Cause.INVALID
    )
    try:
        fusion = as_model(Fusion, said)
    except InvalidMessageError:
        fusion = Fusion()
    event = StepReported(
        named.step_name,
        named.attempt,
        Status.FAILED,
        error=error,
        holder=holder if isinstance(holder, str) and holder else None,
        redelivered=delivery.redelivered,
        continues_with=fusion.continues_with,
        continued_from=fusion.continued_from,
    )
    return Occurrence(named.instance_id, event, workflow_id)


def reported(report: StepReport, said: Fusion = _NO_FUSION, *, redelivered: bool = False) -> StepReported:
    """The report, and what it said of step fusion, as an event."""
    return StepReported(
        step=report.step_name,
        attempt=report.attempt,
        status=report.state,
        result=report.result,
        action=report.action,
        error=report.error,
        decision=report.decision,
        holder=report.worker_id,
        started_at=report.started_at,
        redelivered=redelivered,
        continues_with=said.continues_with,
        continued_from=said.continued_from,
    )


def _check_exchange(delivery: Delivery, topology: Topology, workflow_id: str) -> None:
    if delivery.exchange != topology.reports_exchange(workflow_id):
        raise InvalidMessageError(f"workflow_id: {workflow_id!r} came through exchange {delivery.exchange!r}")


def read_dead_letter(delivery: Delivery) -> Occurrence:
    """A dead-lettered assignment, as what its reason means for the attempt."""
    # It nests as deep as a coordinator writes it, around a result that nests as deep as a report may.
    value = codec.decode(delivery.body, nesting=codec.MAX_WRAPPED_NESTING)
    assignment = as_model(StepAssignment, value)
    reason = death_reason(delivery.properties.headers or {})
    event: StepExpired | StepPoisoned | StepReported
    if reason == "expired":
        event = StepExpired(assignment.step_name, assignment.attempt, redelivered=delivery.redelivered)
    elif reason == "delivery_limit":
        event = StepPoisoned(assignment.step_name, assignment.attempt, redelivered=delivery.redelivered)
    elif reason == "rejected":
        error = StepError(
            type=ASSIGNMENT_REJECTED,
            message="a worker refused the assignment: it cannot execute this step",
            cause=Cause.INVALID,
        )
        event = StepReported(
            assignment.step_name,
            assignment.attempt,
            Status.FAILED,
            error=error,
            redelivered=delivery.redelivered,
        )
    else:
        raise InvalidMessageError(f"dead letter with reason {reason!r}")
    return Occurrence(assignment.instance_id, event, assignment.workflow_id)


def death_reason(headers: Mapping[str, Any]) -> str | None:
    """Why RabbitMQ dead-lettered a message the last time: `x-death` is newest first on every version."""
    deaths = headers.get("x-death")
    if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        reason = deaths[0].get("reason")
        return reason if isinstance(reason, str) else None
    return None
