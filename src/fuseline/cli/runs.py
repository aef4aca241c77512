"""`fuseline runs`: list, show, watch, cancel and purge runs."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer
from rich.text import Text

from fuseline.cli.confirming import confirm
from fuseline.cli.failing import ExitCode, UsageError
from fuseline.cli.options import BROKER, Embedded, Json, command
from fuseline.cli.output import duration, err, moment, out, print_json, short, state_text, table
from fuseline.cli.show import show_run
from fuseline.cli.values import read_span
from fuseline.cli.watch import schema_of, watch_run
from fuseline.cli.wiring import open_broker, open_database
from fuseline.clock import SystemClock
from fuseline.model import RunStatus
from fuseline.settings import Settings

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="List, show, watch, cancel and purge runs."
)

InstanceId = Annotated[str, typer.Argument(metavar="INSTANCE_ID", help="The run, as dispatch named it.")]


@app.command("list")
@command(*BROKER)
def list_runs(
    settings: Settings,
    workflow: Annotated[str | None, typer.Option("--workflow", help="Only of this workflow id.")] = None,
    state: Annotated[
        str | None, typer.Option("--state", help="Only running, succeeded, failed or cancelled ones.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 50,
    before: Annotated[
        str | None, typer.Option("--before", metavar="INSTANCE_ID", help="Older than this run, to page on.")
    ] = None,
    embedded: Embedded = False,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    wanted = _state(state)
    with open_broker(settings, embedded=embedded) as broker:
        runs = broker.list_runs(workflow_id=workflow, state=wanted, limit=limit, before=before)
    if as_json:
        print_json(runs)
        return
    rows = [
        (
            run.instance_id,
            f"{run.workflow_id} {run.workflow_version}",
            state_text(run.state),
            moment(run.created_at),
            duration(None if run.finished_at is None else run.finished_at - run.created_at),
            Text(
                short(f"{run.failed_step}: {run.error.message}" if run.error else run.failed_step or "", 60)
            ),
        )
        for run in runs
    ]
    out().print(table(("instance", "workflow", "state", "began", ">took", "failed"), rows))
    if len(runs) == limit:
        err().print(f"more may follow: --before {runs[-1].instance_id}", style="dim")


@app.command("show")
@command(*BROKER)
def show(
    settings: Settings, instance_id: InstanceId, embedded: Embedded = False, as_json: Json = False
) -> None:
    """Show a run: every step with its state, attempts, time and error."""
    with open_broker(settings, embedded=embedded) as broker:
        run = broker.get_run(instance_id)
        if as_json:
            print_json(run)
        else:
            out().print(show_run(run, schema_of(broker, run), SystemClock().now()))


@app.command("watch")
@command(*BROKER)
def watch(
    settings: Settings,
    instance_id: InstanceId,
    timeout: Annotated[float | None, typer.Option("--timeout", min=0, metavar="SECONDS")] = None,
    embedded: Embedded = False,
    as_json: Json = False,
) -> None:
    """Watch a run until it has ended. Exit code 1 when it did not succeed."""
    with open_broker(settings, embedded=embedded) as broker:
        if as_json:
            run = broker.wait(instance_id, timeout)
            print_json(run)
        else:
            run = watch_run(broker, instance_id, out(), timeout_seconds=timeout)
    if run.state is not RunStatus.SUCCEEDED:
        raise typer.Exit(ExitCode.FAILED)


@app.command("cancel")
@command(*BROKER)
def cancel(
    settings: Settings, instance_id: InstanceId, embedded: Embedded = False, as_json: Json = False
) -> None:
    """End a run: what waits is not started any more, what runs is told to stop."""
    with open_broker(settings, embedded=embedded) as broker:
        broker.cancel_run(instance_id)
    if as_json:
        print_json({"instance_id": instance_id, "cancelled": True})
    else:
        out().print(f"cancelled {instance_id}")


@app.command("purge")
@command("database_url")
def purge(
    settings: Settings,
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than", metavar="TIME", help="Only runs that ended so long ago: 45s, 12h, 30d, 8w."
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete runs that have ended, with their steps, inputs and results, from the database."""
    before = SystemClock().now() - read_span("--older-than", older_than)
    if not yes:
        confirm(f"Delete all runs that ended before {moment(before)}?")
    deleted = 0
    with contextlib.closing(open_database(settings)) as storage:
        while count := storage.purge_runs(before):
            deleted += count
    if as_json:
        print_json({"deleted": deleted, "ended_before": before})
    else:
        out().print(
            f"deleted {deleted} {'run' if deleted == 1 else 'runs'} that ended before {moment(before)}"
        )


def _state(text: str | None) -> RunStatus | None:
    if text is None:
        return None
    try:
        return RunStatus(text.upper())
    except ValueError:
        known = ", ".join(state.value.lower() for state in RunStatus)
        raise UsageError(f"--state {text}: one of {known}") from None
