"""The soak can see: what grows is not flat, and noise is."""

from __future__ import annotations

from random import Random

import pytest

from tests.fault.checker.leaks import Usage
from tests.fault.soak import Sample, judge_process, slope


def _hour(kib_per_hour: float, *, files_per_hour: float = 0) -> list[Sample]:
    random = Random(1)
    return [
        Sample(
            seconds,
            Usage(
                round(80_000 + kib_per_hour * seconds / 3600 + random.uniform(-300, 300)),
                20 + round(files_per_hour * seconds / 3600),
                10,
            ),
        )
        for seconds in range(0, 3600, 10)
    ]


def test_the_slope_of_a_line_is_found_with_its_error() -> None:
    found, error = slope([(float(x), 3.0 * x + 1) for x in range(10)])
    assert found == pytest.approx(3.0)
    assert error == pytest.approx(0.0, abs=1e-9)


def test_noise_is_flat() -> None:
    assert judge_process(_hour(0), 600)["flat"]


def test_ten_mib_an_hour_are_a_leak() -> None:
    """P6."""
    found = judge_process(_hour(10_240), 600)
    assert not found["flat"]
    assert found["slope_kib_per_hour"] == pytest.approx(10_240, rel=0.05)


def test_files_that_stay_open_are_a_leak() -> None:
    """P6."""
    assert not judge_process(_hour(0, files_per_hour=100), 600)["flat"]


def test_a_few_minutes_say_nothing_about_an_hour() -> None:
    found = judge_process(_hour(10_240)[:30], 60)
    assert found["flat"]
    assert not found["is_slope_judged"]
