"""P8: a thread that is there only while there is something to wait for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import pytest

from fuseline.broker import alarm as module
from fuseline.broker.alarm import Alarm
from fuseline.clock import SystemClock
from fuseline.errors import StorageUnavailableError

CLOCK = SystemClock()


class Ringing:
    """Counts how often an alarm rang; each time it does what is next in `then`."""

    def __init__(self) -> None:
        self.rung: queue.Queue[float] = queue.Queue()
        self.then: list[float | Exception | None] = []
        self.alarm = Alarm(CLOCK, self.ring)

    def ring(self) -> None:
        self.rung.put(CLOCK.now())
        following = self.then.pop(0) if self.then else None
        if isinstance(following, Exception):
            raise following
        self.alarm.set(None if following is None else CLOCK.now() + following)

    def thread(self) -> threading.Thread | None:
        return next((one for one in threading.enumerate() if one.name == "fuseline timers"), None)


@pytest.fixture
def ringing() -> Iterator[Ringing]:
    one = Ringing()
    yield one
    one.alarm.close()
    assert one.thread() is None


def test_no_thread_without_a_time(ringing: Ringing) -> None:
    ringing.alarm.set(None)
    assert ringing.thread() is None


def test_it_rings_at_its_time_and_the_thread_ends_when_no_other_follows(ringing: Ringing) -> None:
    at = CLOCK.now() + 0.05
    ringing.then = [0.01, None]
    ringing.alarm.set(at)
    thread = ringing.thread()
    assert thread is not None
    assert ringing.rung.get(timeout=10) >= at
    ringing.rung.get(timeout=10)
    thread.join(10)
    assert not thread.is_alive()
    ringing.alarm.set(CLOCK.now())
    ringing.rung.get(timeout=10)


def test_an_earlier_time_wakes_it(ringing: Ringing) -> None:
    ringing.alarm.set(CLOCK.now() + 3600)
    ringing.alarm.set(CLOCK.now() + 0.02)
    ringing.rung.get(timeout=10)


def test_a_time_that_is_taken_back_ends_the_thread(ringing: Ringing) -> None:
    ringing.alarm.set(CLOCK.now() + 3600)
    thread = ringing.thread()
    assert thread is not None
    ringing.alarm.set(None)
    thread.join(10)
    assert not thread.is_alive()
    assert ringing.rung.empty()


def test_it_rings_again_soon_after_a_failure_that_passes(
    ringing: Ringing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: a database that was away at the wrong moment stops no timer."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.02)
    ringing.then = [StorageUnavailableError("away"), None]
    ringing.alarm.set(CLOCK.now())
    first, second = ringing.rung.get(timeout=10), ringing.rung.get(timeout=10)
    assert second - first >= 0.02
    assert "away" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failure_that_nobody_expects_is_seen_and_the_next_time_set_begins_anew(ringing: Ringing) -> None:
    ringing.then = [ZeroDivisionError("a mistake of ours"), None]
    ringing.alarm.set(CLOCK.now() + 0.02)
    thread = ringing.thread()
    assert thread is not None
    ringing.rung.get(timeout=10)
    thread.join(10)
    assert not thread.is_alive()
    ringing.alarm.set(CLOCK.now())
    ringing.rung.get(timeout=10)


def test_closed_it_rings_no_more(ringing: Ringing) -> None:
    ringing.alarm.set(CLOCK.now() + 3600)
    ringing.alarm.close()
    ringing.alarm.set(CLOCK.now())
    assert ringing.thread() is None
    assert ringing.rung.empty()
