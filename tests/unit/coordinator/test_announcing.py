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

    @property
    def asked(self) -> list[list[str]]:
        """The keys of each probe."""
        return [keys for keys, _ in self.probes]

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
            assert key == ""  # a listener sees it
            headers: dict[str, Any] = dict(properties.headers or {})
            self.probes.append((headers["BCC"], on_done))
        else:
            assert not mandatory
            event = codec.decode(body)
            self.events.append((key, event["kind"]))
            self.times.append(event["at"])


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def quiet(link: FakeLink, clock: ManualClock) -> Announcer:
    """Nobody has listened lately."""
    return Announcer(cast(Link, link), Topology(), clock)


@pytest.fixture
def heard(link: FakeLink, quiet: Announcer) -> Announcer:
    """Somebody has just listened."""
    quiet.tell(outcome("earlier", "workflow_started"))
    link.end_of_moment()
    for number in range(2):
        link.probes[number][1](None)
    assert len(link.events) == 1
    for seen in (link.probes, link.events, link.times, link.waits):
        seen.clear()
    return quiet


NOBODY = UnroutableError("nobody")


def outcome(run: str, *kinds: str, workflow: str = "w") -> Outcome:
    notices = [Notice(kind, "a", 1) for kind in kinds]
    return Outcome(run, Verdict.ACCEPTED, workflow_id=workflow, version="1", notices=notices)


# ---- where nobody has listened lately


def test_where_nobody_listens_each_kind_of_a_workflow_is_asked_for_once_and_no_run(
    link: FakeLink, quiet: Announcer
) -> None:
    for run in ("i", "j", "k"):
        quiet.tell(outcome(run, "step_finished", "step_enqueued", "step_enqueued"))
    quiet.tell(outcome("l", "workflow_finished", "step_finished", workflow="other.one"))
    assert link.probes == []
    link.end_of_moment()
    ((keys, answer),) = link.probes
    assert keys == [
        "w.?.step_finished",
        "w.?.step_enqueued",
        "other%2Eone.?.workflow_finished",
        "other%2Eone.?.step_finished",
    ]
    answer(NOBODY)
    assert (len(link.probes), link.events) == (1, [])
    quiet.tell(outcome("i", "workflow_finished"))  # and the next moment is asked about anew
    link.end_of_moment()
    assert link.asked[1:] == [["w.?.workflow_finished"]]


def test_where_somebody_listens_the_runs_are_asked_for_and_only_then_told(
    link: FakeLink, quiet: Announcer
) -> None:
    quiet.tell(outcome("i", "step_finished", "step_enqueued", "step_enqueued"))
    quiet.tell(outcome("j", "step_finished"))
    link.end_of_moment()
    link.probes[0][1](None)
    assert link.asked[1:] == [["w.i.step_finished", "w.i.step_enqueued", "w.j.step_finished"]]
    assert link.events == []
    link.probes[1][1](None)
    assert [key for key, _ in link.events] == [
        "w.i.step_finished",
        "w.i.step_enqueued",
        "w.i.step_enqueued",
        "w.j.step_finished",
    ]


def test_whoever_listens_to_another_run_costs_no_event(link: FakeLink, quiet: Announcer) -> None:
    """Nor a probe more often: it stays quiet."""
    quiet.tell(outcome("i", "step_finished"))
    link.end_of_moment()
    link.probes[0][1](None)
    link.probes[1][1](NOBODY)
    quiet.tell(outcome("i", "workflow_finished"))
    link.end_of_moment()
    assert link.asked[2:] == [["w.?.workflow_finished"]]
    assert link.events == []
    assert link.waits == [announcing.QUIET_GATHER_SECONDS] * 2


@pytest.mark.parametrize("heard_part", [0, 1])
def test_many_workflows_are_asked_for_in_parts_and_one_that_is_heard_is_enough(
    link: FakeLink, quiet: Announcer, heard_part: int
) -> None:
    """Whichever is answered first, and while it has to wait for an earlier moment."""
    quiet.tell(outcome("earlier", "step_started"))
    link.end_of_moment()
    for number in range(announcing.KEYS_AT_ONCE + 1):
        quiet.tell(outcome("i", "step_finished", workflow=f"w{number}"))
    link.end_of_moment()
    assert list(map(len, link.asked)) == [1, announcing.KEYS_AT_ONCE, 1]
    for part, (_, answer) in enumerate(link.probes[1:]):
        answer(None if part == heard_part else NOBODY)
    assert len(link.probes) == 3
    link.probes[0][1](NOBODY)
    assert [key for keys in link.asked[3:] for key in keys] == [
        f"w{number}.i.step_finished" for number in range(announcing.KEYS_AT_ONCE + 1)
    ]


def test_a_part_that_is_answered_late_asks_for_nothing_twice(link: FakeLink, quiet: Announcer) -> None:
    for number in range(announcing.KEYS_AT_ONCE + 1):
        quiet.tell(outcome("i", "step_finished", workflow=f"w{number}"))
    link.end_of_moment()
    link.probes[0][1](None)
    link.probes[1][1](None)
    assert list(map(len, link.asked)) == [announcing.KEYS_AT_ONCE, 1] * 2


def test_runs_are_asked_for_in_the_order_of_the_moments_whatever_order_the_answers_come_in(
    link: FakeLink, quiet: Announcer
) -> None:
    kinds = ["step_enqueued", "step_started", "step_finished", "workflow_finished"]
    for kind in kinds:
        quiet.tell(outcome("i", kind))
        link.end_of_moment()
    first, second, third, last = (answer for _, answer in link.probes)
    last(None)
    third(NOBODY)
    second(None)
    assert link.asked == [[f"w.?.{kind}"] for kind in kinds]
    first(None)
    assert link.asked[4:] == [["w.i.step_enqueued"], ["w.i.step_started"], ["w.i.workflow_finished"]]


def test_a_moment_after_somebody_was_heard_waits_for_one_that_is_asked_about_still(
    link: FakeLink, quiet: Announcer
) -> None:
    for kind in ("step_started", "step_finished"):
        quiet.tell(outcome("i", kind))
        link.end_of_moment()
    link.probes[0][1](None)
    link.probes[2][1](None)
    quiet.tell(outcome("i", "workflow_finished"))
    link.end_of_moment()
    assert len(link.probes) == 3
    link.probes[1][1](None)
    assert link.asked[3:] == [["w.i.step_finished"], ["w.i.workflow_finished"]]
    link.probes[4][1](None)
    link.probes[3][1](None)
    assert [kind for _, kind in link.events] == ["step_started", "step_finished", "workflow_finished"]


# ---- where somebody has


def test_where_somebody_has_listened_lately_the_runs_are_asked_for_at_once(
    link: FakeLink, heard: Announcer, clock: ManualClock
) -> None:
    """Whether he listens to these or not; until nobody was heard for so long."""
    clock.advance(announcing.HEARD_SECONDS - 1)
    heard.tell(outcome("i", "step_started"))
    link.end_of_moment()
    assert link.asked == [["w.i.step_started"]]
    link.probes[0][1](NOBODY)
    clock.advance(1)
    heard.tell(outcome("i", "step_finished"))
    link.end_of_moment()
    assert link.asked[1:] == [["w.?.step_finished"]]


def test_a_moment_is_short_where_somebody_has_listened_lately(
    link: FakeLink, quiet: Announcer, clock: ManualClock
) -> None:
    """Who watches sees each step at once; where nobody does RabbitMQ is asked seldom."""

    def tell(*answers: FuselineError | None) -> float:
        quiet.tell(outcome("i", "step_finished"))
        link.end_of_moment()
        for answer in answers:
            link.probes[-1][1](answer)
        return link.waits[-1]

    assert tell(NOBODY) == announcing.QUIET_GATHER_SECONDS
    assert tell(None, None) == announcing.QUIET_GATHER_SECONDS
    assert tell(NOBODY) == announcing.GATHER_SECONDS
    clock.advance(announcing.HEARD_SECONDS)
    assert tell(NOBODY) == announcing.QUIET_GATHER_SECONDS


def test_events_of_a_run_are_asked_for_together(
    link: FakeLink, heard: Announcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one of them could come before what happened earlier."""
    monkeypatch.setattr(announcing, "KEYS_AT_ONCE", 3)
    kinds = ["step_enqueued", "step_started", "step_finished"]
    for kind in kinds:
        for run in ("i", "j"):
            heard.tell(outcome(run, kind))
    link.end_of_moment()
    assert link.asked == [[f"w.{run}.{kind}" for kind in kinds] for run in ("i", "j")]


def test_events_keep_their_order_whatever_order_the_answers_come_in(link: FakeLink, heard: Announcer) -> None:
    for kind in ("step_started", "step_finished", "workflow_finished"):
        heard.tell(outcome("i", kind))
        link.end_of_moment()
    (_, first), (_, second), (_, third) = link.probes
    third(None)
    second(NOBODY)
    assert link.events == []
    first(None)
    assert [kind for _, kind in link.events] == ["step_started", "workflow_finished"]


def test_an_event_says_when_it_was_decided_however_late_it_is_told(link: FakeLink, heard: Announcer) -> None:
    for at in (7.5, 8.5):
        told = outcome("i", "step_finished")
        told.at = at
        heard.tell(told)
    link.end_of_moment()
    link.probes[0][1](None)
    assert link.times == [7.5, 8.5]


def test_one_probe_asks_for_so_many_keys_and_no_more(link: FakeLink, heard: Announcer) -> None:
    for number in range(announcing.KEYS_AT_ONCE + 1):
        heard.tell(outcome(f"i{number}", "step_finished"))
    link.end_of_moment()
    assert list(map(len, link.asked)) == [announcing.KEYS_AT_ONCE, 1]


def test_an_event_that_json_cannot_say_costs_no_other(link: FakeLink, heard: Announcer) -> None:
    odd = Outcome("i", Verdict.ACCEPTED, workflow_id="w", version="1")
    odd.notices = [Notice("step_failed", "a", 1, {"error": "\ud800"}), Notice("workflow_finished")]
    heard.tell(odd)
    link.end_of_moment()
    link.probes[0][1](None)
    assert [kind for _, kind in link.events] == ["workflow_finished"]


# ---- never too many


def test_many_events_do_not_wait_for_the_end_of_the_moment(link: FakeLink, quiet: Announcer) -> None:
    for _ in range(announcing.EVENTS_AT_ONCE):
        assert link.probes == []
        quiet.tell(outcome("i", "step_finished"))
    assert link.asked == [["w.?.step_finished"]]


@pytest.mark.parametrize("at_first", ["quiet", "heard"])
def test_what_waits_for_answers_is_bounded(
    link: FakeLink, at_first: str, request: pytest.FixtureRequest
) -> None:
    """RabbitMQ is away: events are dropped, and told again when it has answered."""
    announcer: Announcer = request.getfixturevalue(at_first)
    for _ in range(announcing.MAX_PROBES + 5):
        announcer.tell(outcome("i", "step_finished"))
        link.end_of_moment()
    assert len(link.probes) == announcing.MAX_PROBES
    for _, answer in link.probes:
        answer(NOBODY)
    announcer.tell(outcome("i", "step_finished"))
    link.end_of_moment()
    assert len(link.probes) == announcing.MAX_PROBES + 1


def test_large_moments_wait_for_answers_in_smaller_numbers(
    link: FakeLink, quiet: Announcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has to be asked for with several probes counts as so many: what waits is events, and not messages."""
    monkeypatch.setattr(announcing, "MAX_PROBES", 5)
    for _ in range(5):
        for number in range(announcing.KEYS_AT_ONCE + 1):
            quiet.tell(outcome(f"i{number}", "step_finished"))
        link.end_of_moment()
    assert len(link.probes) == 3
    for _, answer in link.probes[:3]:
        answer(None)
    assert len(link.probes) == 3 + 3 * 2
    quiet.tell(outcome("i", "workflow_finished"))
    link.end_of_moment()
    assert len(link.probes) == 3 + 3 * 2  # those for the runs wait as well


# ---- the end


def test_whoever_stops_asks_nobody_where_nobody_has_listened_lately(link: FakeLink, quiet: Announcer) -> None:
    """The answer would come when nothing can be sent any more."""
    quiet.stop()
    quiet.tell(outcome("i", "workflow_finished"))
    quiet.stop()
    link.end_of_moment()
    assert (link.probes, link.events) == ([], [])


def test_whoever_stops_tells_what_waits_where_somebody_listens(link: FakeLink, heard: Announcer) -> None:
    """The answers come when nothing can be sent any more: who watches would never see a run end."""
    heard.tell(outcome("i", "step_started"))
    link.end_of_moment()
    heard.tell(outcome("i", "step_finished", "workflow_finished"))
    heard.stop()
    told = ["step_started", "step_finished", "workflow_finished"]
    assert [kind for _, kind in link.events] == told
    link.probes[0][1](None)
    link.end_of_moment()
    assert [kind for _, kind in link.events] == told
    assert len(link.probes) == 1


def test_whoever_stops_also_tells_what_nobody_has_answered_whether_anybody_listens(
    link: FakeLink, quiet: Announcer
) -> None:
    kinds = ["step_enqueued", "step_started", "step_failed", "step_finished"]
    for kind in kinds:
        quiet.tell(outcome("i", kind))
        link.end_of_moment()
    first, _, third, _ = (answer for _, answer in link.probes)
    first(None)
    third(NOBODY)
    link.probes[4][1](None)
    quiet.tell(outcome("i", "workflow_finished"))
    quiet.stop()
    told = ["step_enqueued", "step_started", "step_finished", "workflow_finished"]
    assert [kind for _, kind in link.events] == told
    for _, answer in link.probes[1:4:2]:
        answer(None)
    assert len(link.probes) == 5
    assert [kind for _, kind in link.events] == told
