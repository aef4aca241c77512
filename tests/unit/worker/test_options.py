from __future__ import annotations

from typing import Any

import pytest

from fuseline.errors import CallerError
from fuseline.settings import Settings
from fuseline.worker.options import Options


def test_what_is_not_asked_for_comes_from_the_settings() -> None:
    settings = Settings(
        drain_seconds=7.0, claim_after_seconds=2.0, heartbeat_seconds=3.0, max_message_bytes=5000
    )
    options = Options.of(settings, concurrency=3)
    assert options == Options(
        concurrency=3,
        executor="thread",
        heartbeat_seconds=3.0,
        claim_after_seconds=2.0,
        drain_seconds=7.0,
        call_seconds=settings.call_seconds,
        max_message_bytes=5000,
    )
    assert Options.of(settings, drain_seconds=0).drain_seconds == 0
    assert Options.of(settings, executor="async").concurrency == 100


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"concurrency": 0}, "concurrency 0"),
        ({"concurrency": True}, "concurrency True"),
        ({"concurrency": 2.5}, "concurrency 2.5"),
        ({"executor": "fork"}, "'thread', 'process' or 'async'"),
        ({"drain_seconds": -1}, "drain_seconds -1"),
    ],
)
def test_what_makes_no_sense_is_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(CallerError, match=said):
        Options.of(Settings(), **wrong)
