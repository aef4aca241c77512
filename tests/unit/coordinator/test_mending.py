"""P4: when a queue that does not answer may be deleted."""

from __future__ import annotations

import pytest

from fuseline.coordinator.mending import Answer, may_be_made_anew

GIVEN, NONE, UNKNOWN = Answer.GIVEN, Answer.NONE, Answer.UNKNOWN


def test_a_queue_that_is_silent_while_others_answer_is_made_anew() -> None:
    assert may_be_made_anew([NONE, NONE], [GIVEN, GIVEN])
    assert may_be_made_anew([NONE, NONE], [NONE, GIVEN])  # the other one may be broken in the same way


@pytest.mark.parametrize(
    ("queue", "others"),
    [
        ([NONE, NONE], [NONE, NONE]),  # a majority of the nodes is away
        ([NONE, NONE], [UNKNOWN, UNKNOWN]),
        ([NONE, NONE], []),
        ([NONE, GIVEN], [GIVEN, GIVEN]),  # it was a stall
        ([NONE, UNKNOWN], [GIVEN, GIVEN]),  # the connection was lost over it
        ([], [GIVEN]),
    ],
)
def test_everything_else_leaves_it_alone(queue: list[Answer], others: list[Answer]) -> None:
    assert not may_be_made_anew(queue, others)
