"""`fuseline parked`: look at, export and send again what nobody could read or place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, TypeAlias

import typer
from rich.text import Text

from fuseline.amqp.parked import ParkedMessage, ParkedQueue
from fuseline.amqp.sync import BackgroundLink
from fuseline.cli.confirming import confirm
from fuseline.cli.failing import ExitCode, UsageError
from fuseline.cli.options import Json, command
from fuseline.cli.output import err, moment, out, print_json, short, table
from fuseline.cli.wiring import amqp_urls, topology_of
from fuseline.errors import CallerError, FuselineError
from fuseline.settings import Settings

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="List, export and replay messages that nobody could read or place.",
)

_SETTINGS = ("amqp_url", "prefix", "queue_type", "call_seconds")

Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
@command(*_SETTINGS)
def list_messages(
    settings: Settings,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    as_json: Json = False,
) -> None:
    """List parked messages, those first that were not looked at for longest. None is taken away."""
    with _parked(settings) as queue:
        total = queue.count()
        messages = list(queue.browse(limit))
    if as_json:
        print_json(messages)
        return
    rows = [
        (
            message.message_id,
            moment(message.parked_at),
            message.type,
            message.exchange,
            Text(short(_told(message), 60)),
            Text(short(message.content.decode(errors="replace"), 40)),
        )
        for message in messages
    ]
    out().print(table(("id", "parked", "type", "exchange", "reason", "body"), rows))
    if total > len(messages):
        err().print(f"{len(messages)} of {total}; the next call shows the next ones", style="dim")


@app.command("export")
@command(*_SETTINGS)
def export(
    settings: Settings,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, of one JSON object a line.")],
    remove: Annotated[
        bool, typer.Option("--remove", help="Take away what is in the file, once it is on the disk.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write all parked messages to a file: why, when, from where, headers and body (base64).

    What is interrupted loses nothing: each message is in the queue or in the file, or in both.
    """
    with _parked(settings) as queue:
        queue.count()  # no file is made where there is nothing to be had
        with _new_file(file) as stream:
            if remove:
                total = queue.drain(lambda messages: _write(stream, messages, sync=True))
            else:
                total = 0
                for message in queue.browse():
                    _write(stream, [message])
                    total += 1
    if as_json:
        print_json({"file": str(file), "messages": total, "removed": remove})
    else:
        out().print(Text(f"{_count(total)} in {file}{', and no longer parked' * remove}"))


@app.command("replay")
@command(*_SETTINGS)
def replay(
    settings: Settings,
    message_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="These messages.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are there now.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Send reports again through the exchange that they came through; what still fits nowhere is parked again.

    Exit code 3 when one could not be sent; it stays parked, and the others were sent.
    """
    if bool(message_ids) == everything:
        raise UsageError("give the ids of parked messages, or --all")
    missing = set(message_ids or ())
    answers: list[dict[str, Any]] = []
    refused = 0
    with _parked(settings) as queue:
        if everything and not yes:
            confirm(f"Replay {_count(queue.count())}?")
        wanted = frozenset(missing)
        for message, problem in queue.replay(lambda one: everything or one.message_id in wanted):
            missing.discard(message.message_id)
            refused += bool(problem)
            answers.append(_answer(message.message_id, problem))
    for message_id in sorted(missing):
        refused += 1
        answers.append(_answer(message_id, "there is no such parked message"))
    for answer in answers:
        if answer["error"]:
            err().print(Text(short(f"{answer['message_id']}: {answer['error']}", 180)))
    if as_json:
        print_json(answers)
    else:
        out().print(f"{_count(len(answers) - refused)} replayed, {refused} refused")
    if refused:
        raise typer.Exit(ExitCode.CALLER)


def _told(message: ParkedMessage) -> str:
    return message.reason if message.part is None else f"(part {message.part}) {message.reason}"


def _answer(message_id: str, problem: str) -> dict[str, Any]:
    return {"message_id": message_id, "done": None if problem else "replayed", "error": problem or None}


@contextmanager
def _parked(settings: Settings) -> Iterator[ParkedQueue]:
    with BackgroundLink(amqp_urls(settings), name=f"fuseline parked {os.getpid()}") as link:
        link.connect(settings.call_seconds)
        yield ParkedQueue(link, topology_of(settings), settings.call_seconds)


@contextmanager
def _new_file(file: Path) -> Iterator[IO[bytes]]:
    """A file that is on the disk, with its name, whenever this is left in order. Raises `CallerError`."""
    try:
        with file.open("xb") as stream:
            _sync_name(file)
            yield stream
            _write(stream, [], sync=True)
    except FuselineError:
        raise  # some of ours are an OSError too
    except FileExistsError:
        raise CallerError(f"{file} exists already: give a new name") from None
    except OSError as error:
        # Nothing of a batch that could not be written was taken away.
        raise CallerError(f"{file}: {error.strerror or error}") from error


def _write(stream: IO[bytes], messages: list[ParkedMessage], *, sync: bool = False) -> None:
    for message in messages:
        stream.write(message.model_dump_json().encode() + b"\n")
    if sync:
        stream.flush()
        os.fsync(stream.fileno())


def _sync_name(file: Path) -> None:
    folder = os.open(file.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _count(number: int) -> str:
    return f"{number} parked {'message' if number == 1 else 'messages'}"
