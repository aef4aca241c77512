"""`fuseline serve`."""

from __future__ import annotations

import typer

from fuseline.cli.options import BROKER, Embedded, command
from fuseline.cli.wiring import open_broker
from fuseline.settings import Settings
from fuseline.web.server import serve as serve_http

app = typer.Typer(add_completion=False)


@app.command()
@command(*BROKER, "host", "port", log_level="info")
def serve(settings: Settings, embedded: Embedded = False) -> None:
    """Serve the HTTP interface over RabbitMQ (or, with --embedded, over a database alone) until SIGTERM or Ctrl-C."""
    with open_broker(settings, embedded=embedded) as broker:
        serve_http(broker, settings.host, settings.port, log_level=settings.log_level)
