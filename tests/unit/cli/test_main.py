"""The list of commands costs nothing, and every command in it can be had."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import ClassVar

import pytest
import typer.main
from typer.testing import CliRunner

from fuseline.cli.lazy import Lazy, LazyGroup
from fuseline.cli.main import Root, app
from fuseline.errors import FatalError

HEAVY = (
    "sqlalchemy",
    "fastapi",
    "pika",
    "aio_pika",
    "alembic",
    "uvloop",
    "fuseline.broker",
    "fuseline.worker",
)


def test_help_imports_nothing_heavy() -> None:
    """Counted in modules and not in milliseconds, which depend on the machine."""
    script = (
        "import sys\nfrom fuseline.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert told.splitlines()[-1] == "[]"
    for name, lazy in Root.table.items():
        assert name in told
        assert lazy.help.split()[0] in told


@pytest.mark.parametrize("name", Root.table)
def test_every_command_has_a_help_page_with_the_common_options(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


def test_a_misspelt_command_is_corrected() -> None:
    result = CliRunner().invoke(app, ["workflow"])
    assert result.exit_code == 2
    assert "workflows" in result.output


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("fuseline ")


def test_what_an_extra_would_bring_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Group(LazyGroup):
        table: ClassVar[Mapping[str, Lazy]] = {
            "serve": Lazy("tests.unit.cli.needs_web", "needs the extra web")
        }

    monkeypatch.setitem(sys.modules, "fastapi", None)
    lonely = typer.Typer(cls=Group)
    lonely.callback()(lambda: None)
    result = CliRunner().invoke(lonely, ["serve"])
    assert result.exit_code == 5
    assert "fatal_error: fastapi is not installed: pip install 'fuseline[web]'" in result.output


def test_another_missing_module_is_a_mistake_of_ours() -> None:
    class Group(LazyGroup):
        table: ClassVar[Mapping[str, Lazy]] = {"x": Lazy("fuseline.cli.there_is_no_such_module", "")}

    lonely = typer.Typer(cls=Group)
    lonely.callback()(lambda: None)
    result = CliRunner().invoke(lonely, ["x"])
    assert isinstance(result.exception, ModuleNotFoundError)
    assert not isinstance(result.exception, FatalError)
