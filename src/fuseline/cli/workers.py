"""`fuseline workers`."""

from __future__ import annotations

import typer
from rich.text import Text

from fuseline.cli.options import BROKER, Embedded, Json, command
from fuseline.cli.output import duration, moment, out, print_json, table
from fuseline.cli.wiring import open_broker
from fuseline.clock import SystemClock
from fuseline.settings import Settings

app = typer.Typer(add_completion=False)


@app.command()
@command(*BROKER)
def workers(settings: Settings, embedded: Embedded = False, as_json: Json = False) -> None:
    """List the workers: where they run, what they execute, when they were last heard of."""
    with open_broker(settings, embedded=embedded) as broker:
        found = broker.list_workers()
    if as_json:
        print_json(found)
        return
    now = SystemClock().now()
    rows = [
        (
            worker.worker_id,
            Text("✓ alive", "green") if worker.alive else Text("✗ silent", "red"),
            f"{worker.host or '?'} {worker.pid or ''}".strip(),
            ", ".join(f"{workflow_id} {version}" for workflow_id, version in worker.workflows),
            moment(worker.registered_at),
            f"{duration(now - worker.last_seen_at)} ago",
        )
        for worker in sorted(found, key=lambda one: (not one.alive, one.registered_at))
    ]
    out().print(table(("worker", "state", "process", "workflows", "registered", ">heard of"), rows))
