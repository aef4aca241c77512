"""Do two machines agree what time it is? Deadlines in the database are wall-clock times of whoever wrote them."""

from __future__ import annotations

from collections.abc import Callable

from fuseline.cli.doctor.checks import Check, Health
from fuseline.clock import Clock

TOLERATED_SECONDS = 1.0
_HARMFUL_SECONDS = 10.0


def compare_clocks(whose: str, ask: Callable[[], float], clock: Clock) -> Check:
    """`ask` tells the other clock's time; half of what the asking took is the error that is allowed for."""
    before = clock.now()
    told = ask()
    after = clock.now()
    return judge_skew(whose, told - (before + after) / 2, (after - before) / 2)


def judge_skew(whose: str, skew_seconds: float, error_seconds: float) -> Check:
    """`skew_seconds` above zero: the other clock is ahead."""
    certain = max(0.0, abs(skew_seconds) - error_seconds)
    way = "ahead of" if skew_seconds > 0 else "behind"
    if certain <= TOLERATED_SECONDS:
        return Check(
            "clock", Health.OK, f"{whose} agrees to within {abs(skew_seconds) + error_seconds:.2f} s"
        )
    health = Health.PROBLEM if certain > _HARMFUL_SECONDS else Health.WARNING
    return Check(
        "clock",
        health,
        f"{whose} is {abs(skew_seconds):.1f} s {way} this machine",
        "run NTP on both machines",
    )
