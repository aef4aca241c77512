"""What doctor thinks of settings and clocks. RabbitMQ and databases: tests/integration/cli."""

from __future__ import annotations

from typing import Any

import pytest

from fuseline.cli.doctor.checks import Health
from fuseline.cli.doctor.clock import compare_clocks, judge_skew
from fuseline.cli.doctor.settings import examine_settings
from fuseline.clock import ManualClock
from fuseline.settings import Settings


def settings(**given: Any) -> Settings:
    return Settings.model_construct(set(given), **given)


def test_settings_that_make_sense_are_fine() -> None:
    (check,) = examine_settings(settings(lease_seconds=30), {"FUSELINE_LEASE_SECONDS": "30", "PATH": "x"})
    assert check.health is Health.OK
    assert "lease_seconds" in check.found


@pytest.mark.parametrize(
    ("name", "advice"),
    [("FUSELINE_AMPQ_URL", "did you mean FUSELINE_AMQP_URL?"), ("FUSELINE_ZZZZ", "remove it")],
)
def test_a_misspelt_variable_is_found(name: str, advice: str) -> None:
    (check,) = examine_settings(settings(), {name: "x"})
    assert check.health is Health.WARNING
    assert name in check.found
    assert advice in check.advice


@pytest.mark.parametrize(
    ("lease", "heartbeat", "health"),
    [(60, 10, Health.OK), (30, 10, Health.OK), (29, 10, Health.WARNING), (19, 10, Health.PROBLEM)],
)
def test_a_lease_must_outlast_beats_that_come_late(lease: float, heartbeat: float, health: Health) -> None:
    (check,) = examine_settings(settings(lease_seconds=lease, heartbeat_seconds=heartbeat), {})
    assert check.health is health


def test_holding_deliveries_for_long_meets_rabbitmqs_own_limit() -> None:
    (check,) = examine_settings(settings(claim_after_seconds=1000), {})
    assert check.health is Health.WARNING
    assert "FUSELINE_CLAIM_AFTER_SECONDS" in check.advice


@pytest.mark.parametrize(
    ("skew", "error", "health"),
    [
        (0.4, 0.01, Health.OK),
        (-0.9, 0.0, Health.OK),
        (3.0, 0.1, Health.WARNING),
        (-3.0, 0.1, Health.WARNING),
        (3.0, 2.5, Health.OK),  # the answer took so long that it says nothing
        (60.0, 0.1, Health.PROBLEM),
    ],
)
def test_clocks_that_differ_are_found(skew: float, error: float, health: Health) -> None:
    assert judge_skew("the database", skew, error).health is health


def test_the_way_of_the_skew_is_told() -> None:
    assert "5.0 s ahead of this machine" in judge_skew("it", 5, 0).found
    assert "5.0 s behind this machine" in judge_skew("it", -5, 0).found


def test_what_the_asking_took_is_no_skew() -> None:
    clock = ManualClock()

    def ask() -> float:
        clock.advance(2)
        told = clock.now()
        clock.advance(2)
        return told

    assert compare_clocks("it", ask, clock).health is Health.OK
