"""`fuseline`: the commands by name. Each is imported when it is used."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Annotated, ClassVar

import typer

from fuseline.cli.lazy import Lazy, LazyGroup


class Root(LazyGroup):
    """What `fuseline --help` lists, in this order."""

    table: ClassVar[Mapping[str, Lazy]] = {
        "demo": Lazy("fuseline.cli.demo.command", "Run the example workflow and watch it."),
        "dispatch": Lazy("fuseline.cli.dispatch", "Begin a run."),
        "runs": Lazy("fuseline.cli.runs", "List, show, watch, cancel and purge runs."),
        "dead-letters": Lazy(
            "fuseline.cli.dead_letters", "List, show, replay and discard steps that failed for good."
        ),
        "parked": Lazy(
            "fuseline.cli.parked", "List, export and replay messages that nobody could read or place."
        ),
        "workers": Lazy("fuseline.cli.workers", "List the workers."),
        "workflows": Lazy("fuseline.cli.workflows", "List the registered workflow versions."),
        "coordinator": Lazy(
            "fuseline.cli.coordinator", "Record reports and queue what follows, until stopped."
        ),
        "worker": Lazy("fuseline.cli.worker", "Execute the steps of workflows, until stopped."),
        "serve": Lazy("fuseline.cli.serve", "Serve the HTTP interface, until stopped."),
        "topology": Lazy("fuseline.cli.topology", "Apply, verify and export what is declared on RabbitMQ."),
        "db": Lazy("fuseline.cli.db", "Create, migrate and check the database."),
        "doctor": Lazy("fuseline.cli.doctor.command", "Check everything, and say what to do about it."),
        "bench": Lazy("fuseline.cli.bench", "Measure how fast it is here, or on given servers."),
        "version": Lazy("fuseline.cli.version", "Show which versions are in use here."),
    }


app = typer.Typer(
    cls=Root,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fuseline {importlib.metadata.version('fuseline')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """A workflow broker on RabbitMQ.

    Exit codes: 0 fine, 1 a run failed or a check found something, 2 wrong usage, 3 the request was wrong, 4 something is
    away (try again), 5 somebody has to change something first.
    """


def main() -> None:
    """The entry point of the program `fuseline`."""
    app()
