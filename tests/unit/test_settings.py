"""Settings come from the environment, and a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from fuseline.settings import Settings


@pytest.fixture(autouse=True)
def _empty_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment file of whoever runs the tests, and none of their variables."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FUSELINE_{name.upper()}", raising=False)


def test_it_works_as_it_is() -> None:
    settings = Settings()
    assert settings.amqp_url == "amqp://guest:guest@127.0.0.1:5672/"
    assert settings.database_url.startswith("sqlite:///")
    assert (settings.queue_type, settings.prefix) == ("quorum", "fuseline")
    # A lease outlives a few lost heartbeats, and a delivery is taken over long before RabbitMQ gives up on it.
    assert settings.lease_seconds >= 3 * settings.heartbeat_seconds
    assert settings.claim_after_seconds < settings.lease_seconds


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSELINE_LEASE_SECONDS", "15")
    monkeypatch.setenv("FUSELINE_AMQP_URL", "amqp://there/")
    monkeypatch.setenv("fuseline_prefix", "mine")
    monkeypatch.setenv("LEASE_SECONDS", "1")
    settings = Settings()
    assert (settings.lease_seconds, settings.amqp_url, settings.prefix) == (15.0, "amqp://there/", "mine")


def test_a_file_decides_where_the_environment_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("FUSELINE_BATCH=7\nFUSELINE_PORT=1\nSOMETHING_ELSE=1\nFUSELINE_LATER=2\n")
    monkeypatch.setenv("FUSELINE_PORT", "2")
    settings = Settings()
    assert (settings.batch, settings.port) == (7, 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prefix", ""),
        ("prefix", "a b"),
        ("prefix", "a.b"),
        ("prefix", "x" * 41),
        ("queue_type", "stream"),
        ("port", "65536"),
        ("port", "-1"),
        ("lease_seconds", "0"),
        ("lease_seconds", "soon"),
        ("heartbeat_seconds", "0"),
        ("claim_after_seconds", "-1"),
        ("sweep_seconds", "0"),
        ("max_losses", "0"),
        ("batch", "0"),
        ("batch", "10001"),
        ("call_seconds", "0"),
        ("max_message_bytes", "10"),
        ("drain_seconds", "-1"),
        ("log_level", "loud"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, field: str, value: str) -> None:
    monkeypatch.setenv(f"FUSELINE_{field.upper()}", value)
    with pytest.raises(ValidationError) as raised:
        Settings()
    assert [error["loc"] for error in raised.value.errors()] == [(field,)]


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_says_what_it_is_for(name: str) -> None:
    assert Settings.model_fields[name].description


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name.endswith("_seconds")])
@pytest.mark.parametrize("value", ["nan", "inf", "1e400"])
def test_a_time_is_a_finite_number(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"FUSELINE_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        Settings()
