"""P1, P8: a refused channel is renewed, and not for ever where that is of no use."""

from __future__ import annotations

from fuseline.amqp.renewal import Renewal


def test_the_first_refusal_renews_and_further_ones_less_and_less_often() -> None:
    renewal = Renewal()
    renewed = [now for now in range(600) if renewal.is_due(now)]
    assert renewed == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363, 423, 483, 543]


def test_after_a_quiet_time_it_is_as_ready_as_at_first() -> None:
    renewal = Renewal()
    for now in range(100):
        renewal.is_due(now)
    assert [now for now in range(300, 310) if renewal.is_due(now)] == [300, 301, 303, 307]
