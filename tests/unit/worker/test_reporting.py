"""Reports that end at one moment travel together, and none of them is lost over another (P4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.clock import ManualClock
from fuseline.errors import AccessRefusedError, FuselineError, InvalidMessageError
from fuseline.model import Status, StepAssignment, StepReport
from fuseline.worker import reporting
from fuseline.worker.leases import Held, Phase
from fuseline.worker.reporting import OnSent, Reporting
from fuseline.worker.reports import Sealer


@dataclass
class Sent:
    workflow_id: str
    body: bytes
    properties: codec.Properties
    on_sent: OnSent

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [codec.decode(line) for line in self.body.split(b"\n")]


@dataclass
class Post:
    """A loop's turn, and what is sent at its end."""

    later: list[Callable[[], None]] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    told: list[tuple[str, FuselineError | None]] = field(default_factory=list)
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        link: Any = SimpleNamespace(call_soon=self.later.append)
        self.reporting = Reporting(link, self.clock, lambda *said: self.sent.append(Sent(*said)))

    def report(
        self,
        step: str,
        *,
        workflow_id: str = "g",
        result: Any = None,
        on_sent: OnSent | None = None,
        **held: Any,
    ) -> None:
        names: dict[str, Any] = {"workflow_id": workflow_id, "instance_id": "r", "step_name": step}
        assignment = StepAssignment(**names, assigned_at=0.0, expires_at=1.0)
        sealed = Sealer(self.clock, 10**6).seal(StepReport(**names, state=Status.SUCCEEDED, result=result))
        headers = held.pop("headers", None)
        delivery: Any = SimpleNamespace(properties=codec.Properties(headers=headers))
        one = Held(assignment, cast("Delivery", delivery), 0.0, Phase.REPORTING, **held)
        self.reporting.report(one, sealed, on_sent or (lambda error: self.told.append((step, error))))

    def end_turn(self) -> None:
        turn, self.later[:] = list(self.later), []
        for call in turn:
            call()


@pytest.fixture
def post() -> Post:
    return Post()


def test_who_has_no_more_to_add_need_not_wait_for_the_end_of_the_turn(post: Post) -> None:
    post.report("a")
    post.report("b")
    post.reporting.flush()
    (sent,) = post.sent
    assert [line["step_name"] for line in sent.lines] == ["a", "b"]
    post.report("c")
    post.end_turn()
    assert [line["step_name"] for sent in post.sent for line in sent.lines] == ["a", "b", "c"]


def test_a_lone_report_goes_as_it_is(post: Post) -> None:
    post.report("a")
    assert post.sent == []
    post.end_turn()
    (sent,) = post.sent
    properties = sent.properties
    assert (properties.type, properties.content_type) == (codec.REPORT, codec.CONTENT_TYPE)
    assert (properties.message_id, properties.correlation_id) == ("r/a/1/report", "r")
    sent.on_sent(None)
    assert post.told == [("a", None)]


def test_those_of_one_turn_and_workflow_are_one_message(post: Post) -> None:
    for step, workflow_id in [("a", "g"), ("x", "h"), ("b", "g")]:
        post.report(step, workflow_id=workflow_id)
    post.end_turn()
    assert [(sent.workflow_id, sent.properties.type) for sent in post.sent] == [
        ("g", codec.REPORTS),
        ("h", codec.REPORT),
    ]
    together = post.sent[0]
    assert together.properties.content_type == codec.LINES_CONTENT_TYPE
    assert together.properties.delivery_mode == 2
    assert [line["step_name"] for line in together.lines] == ["a", "b"]
    assert post.told == []
    together.on_sent(None)
    assert post.told == [("a", None), ("b", None)]


def test_the_next_turn_is_another_message(post: Post) -> None:
    for step in "ab":
        post.report(step)
        post.end_turn()
    assert [len(sent.lines) for sent in post.sent] == [1, 1]


def test_a_message_is_bounded_by_number_and_size(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "MAX_TOGETHER", 3)
    monkeypatch.setattr(reporting, "BYTES_TOGETHER", 2_000)
    for step in "abcd":
        post.report(step)
    post.report("large", result="x" * 5_000)
    post.report("e")
    post.end_turn()
    found = [[line["step_name"] for line in sent.lines] for sent in post.sent]
    assert found == [["a", "b", "c"], ["d"], ["large"], ["e"]]


def test_a_report_with_a_trace_context_has_its_own_message(post: Post) -> None:
    post.report("a")
    post.report("b", headers={codec.TRACEPARENT: "00-1-2-01"})
    post.report("c")
    post.end_turn()
    assert [[line["step_name"] for line in sent.lines] for sent in post.sent] == [["b"], ["a", "c"]]
    assert codec.traceparent_of(post.sent[0].properties) == "00-1-2-01"


def test_step_fusion_is_told_beside_the_report(post: Post) -> None:
    following = StepAssignment(
        workflow_id="g", instance_id="r", step_name="c", assigned_at=0.0, expires_at=1.0
    )
    post.report("b", continued_from=("a", 2), following=following)
    post.end_turn()
    (line,) = post.sent[0].lines
    assert (line["continues_with"], line["continued_from"]) == ("c", ["a", 2])
    assert post.sent[0].properties.message_id == "r/b/1/fused"


def test_of_a_message_that_is_refused_each_report_is_sent_alone(post: Post) -> None:
    """Else one report that RabbitMQ does not take would fail the steps beside it."""
    for step in "abc":
        post.report(step)
    post.end_turn()
    post.sent.pop().on_sent(InvalidMessageError("larger than RabbitMQ allows"))
    assert (post.told, [sent.properties.message_id for sent in post.sent]) == (
        [],
        ["r/a/1/report", "r/b/1/report", "r/c/1/report"],
    )
    refused = InvalidMessageError("too large")
    for sent, error in zip(post.sent, (None, refused, None), strict=True):
        sent.on_sent(error)
    assert post.told == [("a", None), ("b", refused), ("c", None)]


def test_who_may_not_report_hears_it_for_all(post: Post) -> None:
    for step in "ab":
        post.report(step)
    post.end_turn()
    refused = AccessRefusedError("no right")
    post.sent.pop().on_sent(refused)
    assert (post.told, post.sent) == ([("a", refused), ("b", refused)], [])


def test_one_whose_receiver_fails_keeps_none_from_being_told(post: Post) -> None:
    def fails(_error: FuselineError | None) -> None:
        raise RuntimeError("a defect")

    post.report("a", on_sent=fails)
    post.report("b")
    post.end_turn()
    with pytest.raises(RuntimeError, match="a defect"):
        post.sent.pop().on_sent(None)
    assert post.told == []
    post.end_turn()
    assert post.told == [("b", None)]
