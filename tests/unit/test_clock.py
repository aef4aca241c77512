"""Time, chance and ids come from one place; in tests they stand still and repeat."""

from __future__ import annotations

import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseline.clock import Clock, ManualClock, SteadyClock, SystemClock


@given(now=st.floats(0, 2**47 / 1000), seed=st.integers(0, 2**32))
def test_an_id_is_a_uuid_of_version_7_that_tells_its_time(now: float, seed: int) -> None:
    text = ManualClock(now, seed).new_id()
    assert len(text) == 32
    assert text == text.lower()
    parsed = uuid.UUID(hex=text)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == int(now * 1000)


def test_ids_made_later_sort_later() -> None:
    clock = ManualClock()
    ids = []
    for _ in range(200):
        ids.append(clock.new_id())
        clock.advance(0.0011)
    assert ids == sorted(ids)


def test_ids_of_one_moment_differ() -> None:
    clock = ManualClock()
    assert len({clock.new_id() for _ in range(10_000)}) == 10_000


def test_many_ids_are_those_that_were_made_one_by_one() -> None:
    many, one = ManualClock(5.0, seed=7), ManualClock(5.0, seed=7)
    ids = many.new_ids(100)
    assert len(set(ids)) == 100
    assert {uuid.UUID(hex=i).version for i in ids} == {7}
    assert many.new_ids(0) == []
    assert ids[0][:12] == one.new_id()[:12]


def test_a_manual_clock_goes_on_only_when_told_to() -> None:
    clock = ManualClock(100.0)
    assert (clock.now(), clock.monotonic()) == (100.0, 100.0)
    assert clock.advance(2.5) == 102.5
    assert clock.advance(-50.0) == clock.now() == 52.5  # a wall clock that was set back


def chances(clock: Clock) -> list[object]:
    return [clock.new_id(), clock.random(), clock.token_bytes(4), clock.random()]


def test_a_manual_clock_repeats_by_its_seed() -> None:
    assert chances(ManualClock(seed=1)) == chances(ManualClock(seed=1))
    assert chances(ManualClock(seed=1)) != chances(ManualClock(seed=2))


def test_the_machines_clock() -> None:
    clock = SystemClock()
    assert abs(clock.now() - time.time()) < 60
    before = clock.monotonic()
    assert clock.monotonic() >= before
    assert 0 <= clock.random() < 1
    assert len(clock.token_bytes(16)) == 16
    assert clock.new_id() != clock.new_id()
    assert uuid.UUID(hex=clock.new_id()).version == 7


class Settable:
    """A source of time that a test moves."""

    def __init__(self, now: float) -> None:
        self.value = now

    def __call__(self) -> float:
        return self.value


@pytest.mark.parametrize("jump", [7200.0, -7200.0])
def test_a_steady_clock_follows_a_jump_slowly(jump: float) -> None:
    wall, passed = Settable(1_000_000.0), Settable(5.0)
    clock = SteadyClock(wall, passed)
    wall.value += jump
    assert clock.now() == 1_000_000.0
    wall.value, passed.value = wall.value + 10, passed.value + 10
    assert clock.now() == pytest.approx(1_000_010.0 + (1.0 if jump > 0 else -1.0))
    for _ in range(100):
        wall.value, passed.value = wall.value + 1000, passed.value + 1000
        clock.now()
    assert clock.now() == wall.value


def test_a_steady_clock_is_the_wall_clock_while_that_is_slewed() -> None:
    wall, passed = Settable(1_000_000.0), Settable(5.0)
    clock = SteadyClock(wall, passed)
    for _ in range(100):
        wall.value, passed.value = wall.value + 1.0005, passed.value + 1
        assert clock.now() == wall.value


def test_a_clock_that_had_no_idea_of_the_time_is_followed_at_once() -> None:
    wall, passed = Settable(0.0), Settable(5.0)
    clock = SteadyClock(wall, passed)
    wall.value = 1_700_000_000.0
    assert clock.now() == 1_700_000_000.0
