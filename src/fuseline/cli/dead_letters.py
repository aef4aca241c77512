"""`fuseline dead-letters`: list, show, replay and discard the steps that failed for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import typer
from rich.progress import Progress
from rich.text import Text

from fuseline.broker.base import Broker
from fuseline.cli.confirming import confirm
from fuseline.cli.failing import ExitCode, UsageError
from fuseline.cli.options import BROKER, Embedded, Json, command
from fuseline.cli.output import err, moment, out, print_json, print_pairs, short, table
from fuseline.cli.wiring import open_broker
from fuseline.errors import CallerError
from fuseline.model import DeadLetterReason, DeadLetterState, DeadLetterView
from fuseline.settings import Settings

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="List, show, replay and discard steps that failed for good.",
)

PAGE = 500

LetterId = Annotated[str, typer.Argument(metavar="ID", help="The dead letter, as list shows it.")]
SomeIds = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="These dead letters.", show_default=False)
]
All: TypeAlias = Annotated[bool, typer.Option("--all", help="All that are open and fit the filters.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
OfWorkflow: TypeAlias = Annotated[str | None, typer.Option("--workflow", help="Only of this workflow id.")]
OfRun: TypeAlias = Annotated[
    str | None, typer.Option("--run", metavar="INSTANCE_ID", help="Only of this run.")
]
Reason: TypeAlias = Annotated[
    str | None,
    typer.Option("--reason", help="Only expired, poison, rejected, timeout, invalid or failed ones."),
]


@app.command("list")
@command(*BROKER)
def list_letters(
    settings: Settings,
    workflow: OfWorkflow = None,
    run: OfRun = None,
    reason: Reason = None,
    state: Annotated[
        str | None, typer.Option("--state", help="Only open, replayed or discarded ones.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 50,
    before: Annotated[
        str | None, typer.Option("--before", metavar="ID", help="Older than this one, to page on.")
    ] = None,
    embedded: Embedded = False,
    as_json: Json = False,
) -> None:
    """List dead letters, the latest first."""
    of_reason, of_state = _reason(reason), _state(state)
    with open_broker(settings, embedded=embedded) as broker:
        letters = broker.list_dead_letters(
            workflow_id=workflow,
            instance_id=run,
            reason=of_reason,
            state=of_state,
            limit=limit,
            before=before,
        )
    if as_json:
        print_json(letters)
        return
    rows = [
        (
            letter.letter_id,
            f"{letter.workflow_id} {letter.workflow_version}",
            letter.instance_id,
            letter.step_name,
            str(letter.attempt),
            letter.reason.value,
            _state_text(letter.state),
            moment(letter.died_at),
            Text(short(letter.error.message, 50)),
        )
        for letter in letters
    ]
    columns = ("id", "workflow", "run", "step", ">attempt", "reason", "state", "died", "error")
    out().print(table(columns, rows))
    if len(letters) == limit:
        err().print(f"more may follow: --before {letters[-1].letter_id}", style="dim")


@app.command("show")
@command(*BROKER)
def show(settings: Settings, letter_id: LetterId, embedded: Embedded = False, as_json: Json = False) -> None:
    """Show a dead letter: its run, step, attempt, reason, error and message."""
    with open_broker(settings, embedded=embedded) as broker:
        letter = broker.get_dead_letter(letter_id)
    if as_json:
        print_json(letter)
        return
    print_pairs(
        {
            "id": letter.letter_id,
            "workflow": f"{letter.workflow_id} {letter.workflow_version}",
            "run": letter.instance_id,
            "step": letter.step_name,
            "attempt": letter.attempt,
            "reason": letter.reason.value,
            "state": letter.state.value,
            "died": moment(letter.died_at),
            "settled": moment(letter.settled_at),
            "next attempt": letter.next_attempt or "",
            "error": f"{letter.error.type}: {letter.error.message}",
        }
    )
    if letter.error.traceback:
        out().print(Text(letter.error.traceback, style="dim"))
    if letter.message is not None:
        print_json(letter.message)


@app.command("replay")
@command(*BROKER)
def replay(
    settings: Settings,
    letter_ids: SomeIds = None,
    everything: All = False,
    workflow: OfWorkflow = None,
    run: OfRun = None,
    reason: Reason = None,
    yes: Yes = False,
    embedded: Embedded = False,
    as_json: Json = False,
) -> None:
    """Set failed runs going again at the step that failed, with a fresh attempt.

    Exit code 3 when one could not be replayed; the others were.
    """

    def once(broker: Broker, letter_id: str) -> tuple[str, DeadLetterView]:
        found = broker.replay_dead_letter(letter_id)
        return "replayed" if found.took_effect else "replayed before", found

    with open_broker(settings, embedded=embedded) as broker:
        ids = _chosen(broker, letter_ids, everything, workflow, run, _reason(reason))
        if everything and not yes:
            confirm(f"Replay {_count(len(ids))}?")
        _each(broker, ids, once, as_json)


@app.command("discard")
@command(*BROKER)
def discard(
    settings: Settings,
    letter_ids: SomeIds = None,
    everything: All = False,
    workflow: OfWorkflow = None,
    run: OfRun = None,
    reason: Reason = None,
    yes: Yes = False,
    embedded: Embedded = False,
    as_json: Json = False,
) -> None:
    """Leave steps as they failed: these dead letters cannot be replayed any more.

    Exit code 3 when one could not be discarded; the others were.
    """
    with open_broker(settings, embedded=embedded) as broker:
        ids = _chosen(broker, letter_ids, everything, workflow, run, _reason(reason))
        if not yes:
            confirm(f"Discard {_count(len(ids))} for good?")
        _each(broker, ids, lambda b, one: ("discarded", b.discard_dead_letter(one)), as_json)


def _chosen(
    broker: Broker,
    letter_ids: list[str] | None,
    everything: bool,
    workflow: str | None,
    run: str | None,
    reason: DeadLetterReason | None,
) -> list[str]:
    """Ids that were given, or of all open ones that fit, the oldest first."""
    if bool(letter_ids) == everything:
        raise UsageError("give the ids of dead letters, or --all")
    if letter_ids:
        if workflow or run or reason:
            raise UsageError("--workflow, --run and --reason go with --all")
        return letter_ids
    found: list[str] = []
    while page := broker.list_dead_letters(
        workflow_id=workflow,
        instance_id=run,
        reason=reason,
        state=DeadLetterState.OPEN,
        limit=PAGE,
        before=found[-1] if found else None,
    ):
        found += [letter.letter_id for letter in page]
    return found[::-1]


def _each(
    broker: Broker,
    ids: list[str],
    once: Callable[[Broker, str], tuple[str, DeadLetterView]],
    as_json: bool,
) -> None:
    """One by one; one that is refused stops no other, what is away stops all."""
    answers: list[dict[str, Any]] = []
    lines: list[str] = []
    refused = 0
    with Progress(console=err(), transient=True, disable=len(ids) < 2) as progress:
        for letter_id in progress.track(ids):
            try:
                done, letter = once(broker, letter_id)
            except CallerError as error:
                refused += 1
                answers.append(
                    {"letter_id": letter_id, "done": None, "code": error.code, "error": str(error)}
                )
                err().print(Text(short(f"{letter_id}: {error}", 180)))
                continue
            answers.append({"done": done, **letter.model_dump(mode="json")})
            lines.append(f"{done} {letter_id}: step {letter.step_name} of run {letter.instance_id}")
    if as_json:
        print_json(answers)
    else:
        for line in lines if len(ids) < PAGE else []:
            out().print(Text(line))
        out().print(f"{_count(len(lines))} done, {refused} refused")
    if refused:
        raise typer.Exit(ExitCode.CALLER)


def _count(number: int) -> str:
    return f"{number} dead {'letter' if number == 1 else 'letters'}"


def _state_text(state: DeadLetterState) -> Text:
    styles = {DeadLetterState.OPEN: "bold red", DeadLetterState.REPLAYED: "green"}
    return Text(state.value, styles.get(state, "dim"))


def _reason(text: str | None) -> DeadLetterReason | None:
    try:
        return None if text is None else DeadLetterReason(text.lower())
    except ValueError:
        raise UsageError(f"--reason {text}: one of {', '.join(DeadLetterReason)}") from None


def _state(text: str | None) -> DeadLetterState | None:
    try:
        return None if text is None else DeadLetterState(text.lower())
    except ValueError:
        raise UsageError(f"--state {text}: one of {', '.join(DeadLetterState)}") from None
