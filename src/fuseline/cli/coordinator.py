"""`fuseline coordinator`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import typer

from fuseline.cli.options import command
from fuseline.cli.wiring import amqp_urls, open_database, rules_of, topology_of
from fuseline.collecting import MANY_NEW_OBJECTS, keep_what_is_loaded, search_seldom
from fuseline.coordinator import Coordinator
from fuseline.notify import Notifier
from fuseline.settings import Settings

app = typer.Typer(add_completion=False)


@app.command()
@command("amqp_url", "database_url", "prefix", "queue_type", log_level="info")
def coordinator(settings: Settings) -> None:
    """Record what workers report and queue what follows, until SIGTERM or Ctrl-C. Several may share a PostgreSQL."""
    storage = open_database(settings)
    try:
        daemon = Coordinator(
            storage,
            amqp_urls(settings),
            topology=topology_of(settings),
            rules=rules_of(settings),
            batch=settings.batch,
            notifier=Notifier(),
        )
        keep_what_is_loaded()
        search_seldom(MANY_NEW_OBJECTS)
        with stopping_on_signals(daemon.stop):
            daemon.run()
    finally:
        storage.close()


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call `stop`; the second one does what it would have done without us."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(_number: int, _frame: FrameType | None) -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop()

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
