"""Events cost a message for many where nobody listens (P8), come in order where somebody does, and never pile up (P6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from fuseline.amqp import codec
from fuseline.amqp.link import Link
from fuseline.amqp.topology import Topology
from fuseline.clock import ManualClock
from fuseline.coordinator import announcing
from fuseline.coordinator.announcing import Announcer
from fuseline.engine import Notice, Verdict
from fuseline.errors import FuselineError, UnroutableError
from fuseline.ledger import Outcome


@dataclass
class FakeLink:
    """Keeps what is published, until the test says how it went."""

    later: list[Callable[[], None]] = field(default_factory=list)
    probes: list[tuple[list[str], Callable[[FuselineError | None], None]]] = field(default_factory=list)
    events: list[tuple[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.waits.append(seconds)
        self.later.append(callback)

    def end_of_moment(self) -> None:
        later, self.later = self.later, []
        for callback in later:
            callback()

    def publish(
        self,
        _exchange: str,
        key: str,
        body: bytes,
        properties: codec.Properties,
        *,
        on_done: Callable[[FuselineError | None], None],
        deadline_seconds: float,
        mandatory: bool,
    ) -> None:
        assert deadline_seconds > 0
        if properties.type == codec.PROBE:
            assert mandatory
            assert body == b"{}"
            assert properties.correlation_id is None
            headers: dict[str, Any] = dict(properties.headers or {})
            self.probes.append(([key, *headers.get("BCC", [])], on_done))
        else:
            assert not mandatory
            event = codec.decode(body)
            self.events.append((key, event["kind"]))
            self.times.append(event["at"])


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def announcer(link: FakeLink) -> Announcer:
    return Announcer(cast(Link, link), Topology(), ManualClock())


def outcome(run: str, *kinds: str) -> Outcome:
    notices = [Notice(kind, "a", 1) for kind in kinds]
    return Outcome(run, Verdict.ACCEPTED, workflow_id="w", version="1", notices=notices)


def test_the_events_of_a_moment_are_one_message_where_nobody_listens(
    link: FakeLink, announcer: Announcer
) -> None:
    announcer.tell(outcome("i", "step_finished", "step_enqueued", "step_enqueued"))
    announcer.tell(outcome("j", "step_finished"))
    assert link.probes == []
    link.end_of_moment()
    ((keys, answer),) = link.probes
    assert keys == ["w.i.step_finished", "w.i.step_enqueued", "w.j.step_finished"]
    answer(UnroutableError("nobody"))
    assert link.events == []
    announcer.tell(outcome("i", "workflow_finished"))  # and the next moment is asked about anew
    link.end_of_moment()
    link.probes[1][1](None)
    assert link.events == [("w.i.workflow_finished", "workflow_finished")]


def test_a_moment_is_short_where_somebody_has_listened_lately(link: FakeLink) -> None:
    """Who watches sees each step at once; where nobody does RabbitMQ is asked seldom."""
    clock = ManualClock()
    announcer = Announcer(cast(Link, link), Topology(), clock)

    def tell(answer: FuselineError | None) -> float:
        announcer.tell(outcome("i", "step_finished"))
        link.end_of_moment()
        link.probes[-1][1](answer)
        return link.waits[-1]

    quiet, short = announcing.QUIET_GATHER_SECONDS, announcing.GATHER_SECONDS
    assert [tell(UnroutableError("nobody")), tell(None), tell(UnroutableError("nobody"))] == [
        quiet,
        quiet,
        short,
    ]
    clock.advance(announcing.HEARD_SECONDS + 1)
    assert tell(UnroutableError("nobody")) == quiet


def test_events_of_a_run_are_asked_for_together(
    link: FakeLink, announcer: Announcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one of them could come before what happened earlier."""
    monkeypatch.setattr(announcing, "KEYS_AT_ONCE", 3)
    kinds = ["step_enqueued", "step_started", "step_finished"]
    for kind in kinds:
        for run in ("i", "j"):
            announcer.tell(outcome(run, kind))
    link.end_of_moment()
    assert [keys for keys, _ in link.probes] == [[f"w.{run}.{kind}" for kind in kinds] for run in ("i", "j")]


def test_events_keep_their_order_whatever_order_the_answers_come_in(
    link: FakeLink, announcer: Announcer
) -> None:
    for kind in ("step_started", "step_finished", "workflow_finished"):
        announcer.tell(outcome("i", kind))
        link.end_of_moment()
    (_, first), (_, second), (_, third) = link.probes
    third(None)
    second(UnroutableError("nobody"))
    assert link.events == []
    first(None)
    assert [kind for _, kind in link.events] == ["step_started", "workflow_finished"]


def test_an_event_says_when_it_was_decided_however_late_it_is_told(
    link: FakeLink, announcer: Announcer
) -> None:
    for at in (7.5, 8.5):
        told = outcome("i", "step_finished")
        told.at = at
        announcer.tell(told)
    link.end_of_moment()
    link.probes[0][1](None)
    assert link.times == [7.5, 8.5]


def test_one_probe_asks_for_so_many_keys_and_no_more(link: FakeLink, announcer: Announcer) -> None:
    for number in range(announcing.KEYS_AT_ONCE + 1):
        announcer.tell(outcome(f"i{number}", "step_finished"))
    link.end_of_moment()
    assert [len(keys) for keys, _ in link.probes] == [announcing.KEYS_AT_ONCE, 1]


def test_many_events_do_not_wait_for_the_end_of_the_moment(link: FakeLink, announcer: Announcer) -> None:
    for _ in range(announcing.EVENTS_AT_ONCE):
        assert link.probes == []
        announcer.tell(outcome("i", "step_finished"))
    assert [keys for keys, _ in link.probes] == [["w.i.step_finished"]]


def test_whoever_stops_asks_for_what_waits(link: FakeLink, announcer: Announcer) -> None:
    announcer.stop()
    announcer.tell(outcome("i", "workflow_finished"))
    announcer.stop()
    link.end_of_moment()
    assert [keys for keys, _ in link.probes] == [["w.i.workflow_finished"]]


def test_whoever_stops_tells_what_waits_where_somebody_listens(link: FakeLink, announcer: Announcer) -> None:
    """The answers come when nothing can be sent any more: who watches would never see a run end."""
    announcer.tell(outcome("i", "workflow_started"))
    link.end_of_moment()
    link.probes[0][1](None)
    announcer.tell(outcome("i", "step_started"))
    link.end_of_moment()
    announcer.tell(outcome("i", "step_finished", "workflow_finished"))
    announcer.stop()
    assert [kind for _, kind in link.events] == [
        "workflow_started",
        "step_started",
        "step_finished",
        "workflow_finished",
    ]
    link.probes[1][1](None)
    link.end_of_moment()
    assert (len(link.probes), len(link.events)) == (2, 4)


def test_what_waits_for_answers_is_bounded(link: FakeLink, announcer: Announcer) -> None:
    """RabbitMQ is away: events are dropped, and told again when it has answered."""
    for _ in range(announcing.MAX_PROBES + 5):
        announcer.tell(outcome("i", "step_finished"))
        link.end_of_moment()
    assert len(link.probes) == announcing.MAX_PROBES
    for _, answer in link.probes:
        answer(UnroutableError("nobody"))
    announcer.tell(outcome("i", "step_finished"))
    link.end_of_moment()
    assert len(link.probes) == announcing.MAX_PROBES + 1


def test_an_event_that_json_cannot_say_costs_no_other(link: FakeLink, announcer: Announcer) -> None:
    odd = Outcome("i", Verdict.ACCEPTED, workflow_id="w", version="1")
    odd.notices = [Notice("step_failed", "a", 1, {"error": "\ud800"}), Notice("workflow_finished")]
    announcer.tell(odd)
    link.end_of_moment()
    link.probes[0][1](None)
    assert [kind for _, kind in link.events] == ["workflow_finished"]
