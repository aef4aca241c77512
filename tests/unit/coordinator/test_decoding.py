"""Several reports in one message are read each by itself: one that cannot be read spoils no other (P7)."""

from __future__ import annotations

from typing import Any

import pytest

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.topology import Topology
from fuseline.coordinator.bundles import messages_in, reports_in
from fuseline.coordinator.decoding import by_itself, read_dead_letter, read_report, read_spoilt_report
from fuseline.engine.events import StepPoisoned, StepReported
from fuseline.errors import InvalidMessageError
from fuseline.model import Status, StepAssignment, StepReport

TOPOLOGY = Topology()


def body(step: str, **more: Any) -> bytes:
    report = StepReport(workflow_id="g", instance_id="r", step_name=step, state=Status.SUCCEEDED, result=step)
    return codec.encode({**report.model_dump(mode="json"), **more})


def delivery(*bodies: bytes, kind: str = codec.REPORTS, **properties: Any) -> Delivery:
    said = codec.properties(kind, message_id="m", timestamp=7.0, **properties)
    exchange = TOPOLOGY.reports_exchange("g")
    return Delivery(5, 2, b"\n".join(bodies), said, exchange, "", True, "reports", None)


def test_each_is_a_delivery_of_its_own() -> None:
    whole = delivery(body("a"), body("b"))
    parts = reports_in(whole)
    assert messages_in(whole) == len(parts) == 2
    for part, step in zip(parts, "ab", strict=True):
        what = read_report(part, TOPOLOGY)
        assert what.instance_id == "r"
        assert what.event == StepReported(step, 1, Status.SUCCEEDED, result=step, redelivered=True)
        assert (part.tag, part.generation) == (5, 2)
        assert (part.properties.type, part.properties.delivery_mode) == (codec.REPORT, 2)
    assert whole.properties.type == codec.REPORTS


def test_a_lone_report_is_what_came() -> None:
    lone = delivery(body("a"), kind=codec.REPORT)
    assert reports_in(lone) == (lone,)
    assert messages_in(lone) == 1


def test_one_that_cannot_be_read_spoils_no_other() -> None:
    good, bad, foreign = reports_in(delivery(body("a"), b"{", body("b", workflow_id="h")))
    assert getattr(read_report(good, TOPOLOGY).event, "step", None) == "a"
    with pytest.raises(InvalidMessageError, match="not JSON"):
        read_report(bad, TOPOLOGY)
    with pytest.raises(InvalidMessageError, match="'h' came through exchange"):
        read_report(foreign, TOPOLOGY)


def test_one_that_travels_on_alone_gets_an_id() -> None:
    first, second = reports_in(delivery(body("a"), body("b", continued_from=["a", 1])))
    for part, name in [(first, "r/a/1/report"), (second, "r/b/1/fused")]:
        alone = by_itself(part, read_report(part, TOPOLOGY))
        assert (alone.properties.message_id, alone.properties.correlation_id) == (name, "r")
    lone = delivery(body("a"), kind=codec.REPORT)
    assert by_itself(lone, read_report(lone, TOPOLOGY)).properties.message_id == "m"


def test_what_is_said_about_step_fusion() -> None:
    said = body("b", continues_with="c", continued_from=["a", 3])
    event = read_report(delivery(said, kind=codec.REPORT), TOPOLOGY).event
    assert isinstance(event, StepReported)
    assert (event.continues_with, event.continued_from) == ("c", ("a", 3))


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ({"continues_with": 7}, "continues_with"),
        ({"continues_with": ""}, "continues_with"),
        ({"continues_with": "a\x00"}, "continues_with"),
        ({"continued_from": "a"}, "continued_from"),
        ({"continued_from": ["a", 0]}, "continued_from.1"),
        ({"continued_from": ["a", "x"]}, "continued_from.1"),
    ],
)
def test_what_is_said_wrongly_about_step_fusion_is_named(said: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidMessageError, match=f"Fusion: {place}: "):
        read_report(delivery(body("b", **said), kind=codec.REPORT), TOPOLOGY)


@pytest.mark.parametrize(
    ("said", "continues_with", "continued_from"),
    [
        ({}, None, None),
        ({"continues_with": "c", "continued_from": ["a", 3]}, "c", ("a", 3)),
        ({"continues_with": "c", "continued_from": "a"}, None, None),
    ],
    ids=["nothing", "well", "wrongly"],
)
def test_what_a_report_that_cannot_be_read_says_about_step_fusion_holds(
    said: dict[str, Any], continues_with: str | None, continued_from: tuple[str, int] | None
) -> None:
    """P5: of an execution that its worker went on with in vain it fails no attempt, and the worker is told."""
    spoilt = delivery(body("b", state="DONE", worker_id="w", **said), kind=codec.REPORT)
    with pytest.raises(InvalidMessageError) as reason:
        read_report(spoilt, TOPOLOGY)
    left = read_spoilt_report(spoilt, TOPOLOGY, reason.value)
    assert left is not None
    assert isinstance(left.event, StepReported)
    assert (left.event.status, left.event.holder) == (Status.FAILED, "w")
    assert (left.event.continues_with, left.event.continued_from) == (continues_with, continued_from)


def test_a_dead_letter_is_read_however_deep_a_result_in_it_nests() -> None:
    """P1: it was parked, and the step hung until the sweep gave it up."""
    result: Any = 1
    for _ in range(codec.MAX_NESTING - 2):
        result = [result]
    codec.decode(codec.encode({"result": result}))  # as a report may have it
    assignment = StepAssignment(
        workflow_id="g",
        instance_id="r",
        step_name="b",
        payload={"workflow_inputs": {}, "results": {"a": result}},
        assigned_at=1.0,
        expires_at=2.0,
    )
    dead = codec.encode(assignment, nesting=codec.MAX_WRAPPED_NESTING)
    said = codec.properties(
        codec.ASSIGNMENT, message_id="m", timestamp=7.0, headers={"x-death": [{"reason": "delivery_limit"}]}
    )
    what = read_dead_letter(Delivery(5, 2, dead, said, "dead", "", False, "dead", None))
    assert what.event == StepPoisoned("b", 1)
