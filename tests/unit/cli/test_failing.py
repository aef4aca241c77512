"""P7: a failure is one line that says what to do, and an exit code that tells the kinds apart."""

from __future__ import annotations

import pytest
import typer

from fuseline.cli.failing import ExitCode, UsageError, failing
from fuseline.errors import (
    BrokerUnavailableError,
    FuselineError,
    MigrationError,
    RunFailed,
    UnknownRunError,
)
from fuseline.settings import Settings


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("what"), ExitCode.USAGE, "fuseline: usage: what\n"),
        (UnknownRunError("no run 'x'"), ExitCode.CALLER, "fuseline: unknown_run: no run 'x'\n"),
        (BrokerUnavailableError("away"), ExitCode.RETRYABLE, "fuseline: broker_unavailable: away\n"),
        (MigrationError("old"), ExitCode.FATAL, "fuseline: migration_needed: old\n"),
        (RunFailed("failed"), ExitCode.FAILED, "fuseline: run_failed: failed\n"),
    ],
)
def test_each_kind_has_its_exit_code(
    error: FuselineError, code: ExitCode, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, failing():
        raise error
    assert caught.value.exit_code == code
    assert capsys.readouterr().err == line


def test_a_message_of_several_lines_becomes_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), failing():
        raise UnknownRunError("first\n   second")
    assert capsys.readouterr().err == "fuseline: unknown_run: first second\n"


def test_debug_shows_where_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), failing(debug=True):
        raise UnknownRunError("gone")
    told = capsys.readouterr().err
    assert "Traceback (most recent call last)" in told
    assert told.endswith("fuseline: unknown_run: gone\n")


def test_a_bad_setting_is_named_as_variable_and_as_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSELINE_LEASE_SECONDS", "soon")
    with pytest.raises(typer.Exit) as caught, failing():
        Settings()
    assert caught.value.exit_code == ExitCode.USAGE
    told = capsys.readouterr().err
    assert told.startswith("fuseline: settings: FUSELINE_LEASE_SECONDS (--lease-seconds): Input should be")
    assert "'soon'" in told


def test_ctrl_c_ends_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, failing():
        raise KeyboardInterrupt
    assert caught.value.exit_code == 130
    assert capsys.readouterr().err == ""


def test_a_mistake_of_ours_keeps_its_trace() -> None:
    with pytest.raises(ZeroDivisionError), failing():
        raise ZeroDivisionError
