"""`fuseline bench`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from fuseline.bench import page as pages
from fuseline.bench import results
from fuseline.bench.bars import Verdict, judge
from fuseline.bench.places import places
from fuseline.bench.rounds import Measured, measure
from fuseline.bench.rounds import Progress as Said
from fuseline.bench.systems import CONCURRENCY, SYSTEMS, WORKERS, Setting, System
from fuseline.bench.works import WORKS, chosen
from fuseline.cli.demo.processes import ending_in_order
from fuseline.cli.failing import ExitCode, UsageError
from fuseline.cli.options import Json, command
from fuseline.cli.output import err, out, print_json, table
from fuseline.settings import Settings

app = typer.Typer(add_completion=False)

QUICK_SCALE: Final = 0.1
ROUNDS: Final = 5


@app.command()
@command()
def bench(
    settings: Settings,
    work: Annotated[
        list[str] | None,
        typer.Option(
            "--work", metavar="NAME", help=f"Only these works: {', '.join(WORKS)}.", show_default=False
        ),
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            "--system", metavar="NAME", help=f"Only these systems: {', '.join(SYSTEMS)}.", show_default=False
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds",
            min=1,
            max=100,
            help=f"How often; {ROUNDS}, with --quick 1.",
            show_default=False,
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One round of a tenth of each work.")] = False,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale",
            metavar="PART",
            help="So much of each work, over 0 and up to 1. Figures of parts are no figures of the whole.",
            show_default=False,
        ),
    ] = None,
    embedded_only: Annotated[
        bool, typer.Option("--embedded-only", help="Only what needs no server: SQLite, and no broker at all.")
    ] = False,
    amqp_url: Annotated[
        str | None, typer.Option("--amqp-url", metavar="URL", help="This RabbitMQ, not a private one.")
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            "--database-url", metavar="URL", help="This PostgreSQL database, not a private one; without runs."
        ),
    ] = None,
    coordinators: Annotated[
        int, typer.Option("--coordinators", min=1, max=64, help="Coordinator processes, but for the floor's.")
    ] = 1,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Worker processes.")] = WORKERS,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=10_000, help="Steps at once in each worker.")
    ] = CONCURRENCY,
    folder: Annotated[Path, typer.Option("--folder", help="Where results and logs go.")] = Path(
        "build/bench"
    ),
    page: Annotated[
        Path | None, typer.Option("--page", help="Write tables and plots into this Markdown page too.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Profile every process (cProfile; slower by half).")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit code 1 when something is slower than it must be.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure how fast Fuseline is here, beside the least code that keeps the same promises.

    Starts a private RabbitMQ (a fresh one each round) and PostgreSQL, or uses the given ones; coordinator and workers run
    on this machine either way.
    """
    if embedded_only and (amqp_url or database_url):
        raise UsageError("--embedded-only needs no server: leave out --amqp-url and --database-url")
    wanted = _systems(system or [], embedded_only)
    works = chosen(work or [], scale if scale is not None else QUICK_SCALE if quick else 1.0)
    logs = folder / "logs"
    profiles = folder / "profiles" if profile else None
    with ending_in_order(), ExitStack() as stack:
        tell = stack.enter_context(_Shown(err()))
        needs_servers = any(one.needs_servers for one in wanted)
        where = stack.enter_context(places(amqp_url, database_url)) if needs_servers else None
        for one in (logs, profiles):
            if one is not None:
                one.mkdir(parents=True, exist_ok=True)
        measured = measure(
            wanted,
            works,
            rounds or (1 if quick else ROUNDS),
            where,
            Setting(logs, workers, concurrency, profiles, coordinators=coordinators),
            tell.tell,
        )
    part = scale if scale is not None else QUICK_SCALE if quick else 1.0
    results.write(folder, measured, part)
    if page is not None:
        pages.write(page, measured, part)
    if as_json:
        print_json([results.rounded(asdict(one)) for one in results.results_of(measured)])
    else:
        _show(measured, part)
    if check and any(one.verdict is Verdict.MISSED for one in judge(results.results_of(measured))):
        raise typer.Exit(ExitCode.FAILED)


def _systems(names: Sequence[str], embedded_only: bool) -> list[System]:
    strange = [name for name in names if name not in SYSTEMS]
    if strange:
        raise UsageError(f"--system: there is no {strange[0]!r}: {', '.join(SYSTEMS)}")
    found = [system for name, system in SYSTEMS.items() if not names or name in names]
    if embedded_only:
        found = [system for system in found if not system.needs_servers]
    if not found:
        raise UsageError("--system, --embedded-only: nothing is left to be measured")
    return found


class _Shown:
    """The progress bar. It moves between measurements only: drawing takes time from what is measured."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._progress.add_task("starting servers", total=None)
        self._is_seen = console.is_terminal
        self._console = console

    def tell(self, said: Said) -> None:
        """What is next."""
        self._progress.update(self._task, completed=said.done, total=said.total, description=said.text)
        if self._is_seen:
            self._progress.refresh()
        elif said.done < said.total:
            self._console.print(f"{said.done}/{said.total} {said.text}")

    def __enter__(self) -> Self:
        if self._is_seen:
            self._progress.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._is_seen:
            self._progress.stop()


_STYLES: Final = {Verdict.REACHED: "green", Verdict.MISSED: "bold red", Verdict.UNKNOWN: "dim"}


def _show(measured: Sequence[Measured], scale: float) -> None:
    found = results.results_of(measured)
    console = out()
    rows = [
        [
            one.work,
            pages.shown_name(one.system, one.fusion),
            f"{pages.figure(one.median)} {pages.UNITS[one.metric]}",
            f"{pages.figure(one.min)} to {pages.figure(one.max)}",
            str(one.rounds),
        ]
        for one in found
    ]
    console.print(table(["work", "system", ">median", "range", ">rounds"], rows))
    judged: list[list[str | Text]] = []
    for one in judge(found):
        if one.verdict is Verdict.UNKNOWN:
            continue
        ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
        name = pages.shown_name(one.bar.system, one.bar.fusion)
        figure = "" if one.found is None else f"{pages.figure(one.found)} {pages.UNITS[one.bar.metric]}"
        verdict = Text(str(one.verdict), _STYLES[one.verdict])
        judged.append([one.bar.work, name, figure, ratio, str(one.bar), verdict])
    if judged:
        console.print(table(["work", "system", ">found", ">ratio", "must be", ""], judged))
    if scale != 1:
        console.print(f"Works were made smaller by {scale:g}: do not compare these figures with whole ones.")
