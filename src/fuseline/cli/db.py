"""`fuseline db`: the database's tables."""

from __future__ import annotations

import typer

from fuseline.cli.failing import ExitCode
from fuseline.cli.options import Json, command
from fuseline.cli.output import err, out, print_json
from fuseline.errors import MigrationError
from fuseline.settings import Settings
from fuseline.storage.sql import check as check_tables
from fuseline.storage.sql import current as current_revision
from fuseline.storage.sql import upgrade as upgrade_tables

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Create, migrate and check the database.")


@app.command()
@command("database_url")
def upgrade(settings: Settings, as_json: Json = False) -> None:
    """Create the tables, or bring them up to date. Doing it twice changes nothing."""
    before = current_revision(settings.database_url)
    upgrade_tables(settings.database_url)
    after = current_revision(settings.database_url)
    if as_json:
        print_json({"before": before, "after": after, "changed": before != after})
    elif before == after:
        out().print(f"up to date: {after}")
    else:
        out().print(f"{before or 'empty'} -> {after}")


@app.command()
@command("database_url")
def current(settings: Settings, as_json: Json = False) -> None:
    """Show which revision the tables have."""
    revision = current_revision(settings.database_url)
    if as_json:
        print_json({"revision": revision})
    else:
        out().print(revision or "no tables yet: fuseline db upgrade")


@app.command()
@command("database_url")
def check(settings: Settings, as_json: Json = False) -> None:
    """Exit code 0 if this version of Fuseline can work with the tables as they are, 1 if not."""
    problem: str | None = None
    try:
        check_tables(settings.database_url)
    except MigrationError as error:
        problem = str(error)
    if as_json:
        print_json({"ok": problem is None, "problem": problem})
    elif problem is None:
        out().print("fine")
    else:
        err().print(problem)
    if problem is not None:
        raise typer.Exit(ExitCode.FAILED)
