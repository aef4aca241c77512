"""`fuseline doctor`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import typer
from rich.text import Text

from fuseline.cli.doctor.checks import Check, Health
from fuseline.cli.doctor.clock import compare_clocks
from fuseline.cli.doctor.database import examine_database
from fuseline.cli.doctor.rabbitmq import examine_rabbitmq, explain_silence
from fuseline.cli.doctor.settings import examine_settings
from fuseline.cli.failing import ExitCode
from fuseline.cli.options import Json, command
from fuseline.cli.output import out, print_json, table
from fuseline.cli.wiring import amqp_urls, open_broker, topology_of
from fuseline.clock import Clock, SystemClock
from fuseline.errors import FuselineError
from fuseline.settings import Settings

app = typer.Typer(add_completion=False)

_SIGNS = {
    Health.OK: ("✓", "green"),
    Health.NOTE: ("·", "dim"),
    Health.WARNING: ("!", "yellow"),
    Health.PROBLEM: ("✗", "bold red"),
}
# As a container's health check it must be done before the next one begins.
_PATIENCE_SECONDS = 5.0


@app.command()
@command("amqp_url", "http_url", "database_url", "prefix", "queue_type", "call_seconds")
def doctor(settings: Settings, as_json: Json = False) -> None:
    """Check RabbitMQ, coordinator, database, clocks and settings, and say what to do. Exit code 1 for a problem."""
    checks = list(examine(settings, SystemClock()))
    if as_json:
        print_json([check._asdict() for check in checks])
    else:
        rows = [
            (Text(*_SIGNS[check.health]), check.name, check.found, Text(check.advice, "bold"))
            for check in checks
        ]
        out().print(table(("", "what", "found", "what to do"), rows))
    if any(check.health is Health.PROBLEM for check in checks):
        raise typer.Exit(ExitCode.FAILED)


def examine(settings: Settings, clock: Clock) -> Iterator[Check]:
    """All checks, one after another."""
    yield from examine_settings(settings, os.environ)
    if "call_seconds" not in settings.model_fields_set:
        settings = settings.model_copy(update={"call_seconds": _PATIENCE_SECONDS})
    about, workflows = _ask_broker(settings, clock)
    if not settings.http_url:
        yield from examine_rabbitmq(
            amqp_urls(settings), topology_of(settings), workflows, settings.call_seconds
        )
    yield from about
    yield from examine_database(settings, clock)


def _ask_broker(settings: Settings, clock: Clock) -> tuple[list[Check], list[tuple[str, str]]]:
    """What a coordinator (or the HTTP service) says of itself, and the workflow versions that it knows."""
    try:
        with open_broker(settings) as broker:
            before = clock.monotonic()
            status = dict(broker.status())
            took = clock.monotonic() - before
            known = broker.list_workflows()
            skew = compare_clocks("the coordinator", lambda: float(broker.status()["now"]), clock)
    except FuselineError as error:
        return [explain_silence(error)], []
    workers = status.get("workers", 0)
    checks = [
        Check("coordinator", Health.OK, f"answers in {took * 1000:.0f} ms; {len(known)} workflow versions"),
        Check("workers", Health.OK, f"{workers} alive")
        if workers
        else Check("workers", Health.NOTE, "none is alive", "start one: fuseline worker module:workflow"),
        skew,
    ]
    return checks, [(one.workflow_id, one.version) for one in known]
