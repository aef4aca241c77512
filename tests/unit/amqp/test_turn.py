"""A user's mistake goes up to the loop, and nobody else's call is lost over it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from fuseline.amqp.turn import Turn


class Loop:
    """Runs what was asked for soon, one turn at a time; the rest of a loop is not needed."""

    def __init__(self) -> None:
        self.soon: deque[Callable[[], None]] = deque()
        self.call_soon = self.soon.append

    def turn(self) -> None:
        for _ in range(len(self.soon)):
            self.soon.popleft()()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def turn(loop: Loop) -> Turn:
    return Turn(loop)  # type: ignore[arg-type]  # call_soon is all that it uses


def test_calls_are_made_in_order_in_one_turn(loop: Loop, turn: Turn) -> None:
    made: list[int] = []
    for number in range(3):
        turn.add(lambda number=number: made.append(number))  # type: ignore[misc]
    assert made == []
    loop.turn()
    assert made == [0, 1, 2]
    assert not loop.soon


def test_what_a_call_adds_is_for_the_next_turn(loop: Loop, turn: Turn) -> None:
    made: list[str] = []

    def again() -> None:
        made.append("x")
        turn.add(again)

    turn.add(again)
    loop.turn()
    assert made == ["x"]
    loop.turn()
    assert made == ["x", "x"]


def test_after_a_call_that_raises_the_others_are_still_made(loop: Loop, turn: Turn) -> None:
    made: list[int] = []
    turn.add(lambda: made.append(1))
    turn.add(lambda: made.append(1 // 0))
    turn.add(lambda: made.append(2))
    with pytest.raises(ZeroDivisionError):
        loop.turn()
    assert made == [1]
    loop.turn()
    assert made == [1, 2]
