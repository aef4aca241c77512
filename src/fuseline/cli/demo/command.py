"""`fuseline demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fuseline.cli.demo.distributed import run_distributed
from fuseline.cli.demo.embedded import run_embedded
from fuseline.cli.demo.processes import ending_in_order
from fuseline.cli.demo.summary import show_summary
from fuseline.cli.failing import ExitCode, UsageError
from fuseline.cli.options import Json, command
from fuseline.cli.output import err, out, print_json
from fuseline.settings import Settings

app = typer.Typer(add_completion=False)


@app.command()
@command("prefix")
def demo(
    settings: Settings,
    rabbitmq: Annotated[
        bool,
        typer.Option(
            "--rabbitmq",
            help="On a private RabbitMQ and PostgreSQL, with a coordinator and worker processes.",
        ),
    ] = False,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="Kill a worker half way, and start none in its place.")
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, max=32, help="Worker processes.")] = 2,
    folder: Annotated[Path, typer.Option("--folder", help="Where report, database and logs go.")] = Path(
        "build/demo"
    ),
    root: Annotated[
        list[Path] | None,
        typer.Option("--root", help="Analyse these folders, not the standard library.", show_default=False),
    ] = None,
    amqp_url: Annotated[
        str | None, typer.Option("--amqp-url", metavar="URL", help="This RabbitMQ, not a private one.")
    ] = None,
    database_url: Annotated[
        str | None, typer.Option("--database-url", metavar="URL", help="This PostgreSQL, not a private one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the example workflow and watch it: Python's standard library, parsed, counted, ranked and written up."""
    if not rabbitmq and (chaos or amqp_url or database_url):
        raise UsageError("--chaos, --amqp-url and --database-url go with --rabbitmq")
    if chaos and workers < 2:
        raise UsageError("--chaos kills a worker; it takes another one to finish: --workers 2")
    folder = folder.resolve()
    inputs: dict[str, Any] = {"folder": str(folder)}
    if root:
        inputs["roots"] = [str(one.resolve()) for one in root]
    console = err() if as_json else out()
    with ending_in_order():
        if rabbitmq:
            summary = run_distributed(
                folder,
                inputs,
                console,
                # On a server that is somebody else's it keeps away from a real installation.
                prefix=settings.prefix if "prefix" in settings.model_fields_set else "fuseline-demo",
                workers=workers,
                chaos=chaos,
                amqp_url=amqp_url,
                database_url=database_url,
            )
            look = []
        else:
            summary = run_embedded(folder, inputs, console)
            database = f"sqlite:///{folder / 'fuseline.db'}"
            look = [f"fuseline runs show {summary.instance_id} --embedded --database-url {database}"]
    if as_json:
        print_json(summary)
    else:
        show_summary(summary, console, look)
    if chaos and summary.killed is None:
        err().print("no worker could be killed while it held a step: the run was over too soon", style="red")
        raise typer.Exit(ExitCode.FAILED)
    if not summary.fine:
        raise typer.Exit(ExitCode.FAILED)
