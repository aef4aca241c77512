"""`fuseline worker`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from fuseline.cli.options import command
from fuseline.cli.wiring import amqp_urls, topology_of
from fuseline.collecting import keep_what_is_loaded, search_seldom
from fuseline.notify import Notifier
from fuseline.settings import Settings
from fuseline.worker import Worker

app = typer.Typer(add_completion=False)


@app.command()
@command("amqp_url", "http_url", "prefix", log_level="info")
def worker(
    settings: Settings,
    workflows: Annotated[
        list[str],
        typer.Argument(metavar="WORKFLOW", help="What to execute: module:workflow or file.py:workflow."),
    ],
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", min=1, help="How many steps at once.")
    ] = None,
    executor: Annotated[
        Literal["thread", "process", "async"],
        typer.Option("--executor", help="Where plain functions run; async ones always run on a loop."),
    ] = "thread",
    drain_seconds: Annotated[
        float | None,
        typer.Option(
            "--drain-seconds",
            min=0,
            help="When told to stop: how long to finish what it has.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Execute the steps of workflows until SIGTERM or Ctrl-C, which let it finish what it has; twice ends it at once."""
    where = settings.http_url or ",".join(amqp_urls(settings))
    one = Worker(
        where,
        workflows,
        concurrency=concurrency,
        executor=executor,
        drain_seconds=drain_seconds,
        topology=topology_of(settings),
        settings=settings,
        notifier=Notifier(),
    )
    keep_what_is_loaded()
    search_seldom()
    one.run()
