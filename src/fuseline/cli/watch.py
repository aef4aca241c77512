"""Follows a run until it has ended: a picture that is drawn anew on a terminal, lines of a log elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from fuseline.broker.base import Broker
from fuseline.cli.output import duration, moment, state_text
from fuseline.cli.show import Names, change_line, ending, heading, steps_table
from fuseline.clock import Clock, SystemClock
from fuseline.errors import DeadlineExceededError, RetryableError, UnsupportedError
from fuseline.model import RunView, Status, WorkflowSchema

_PAUSE_SECONDS: Final = 0.15
# A view of a run with thousands of steps costs the coordinator work: look less often at what takes long to show.
_PAUSE_PER_LOOK: Final = 5.0
# How long a broker may be away: a restart of RabbitMQ, or of the coordinator, is nothing to stop watching for.
_PATIENCE_SECONDS: Final = 90.0
# What else the picture needs, besides a row for each step.
_OTHER_ROWS: Final = 6


class Picture(Protocol):
    """Shows how a run stands, again and again."""

    def show(self, run: RunView) -> None:
        """The run has changed, or time has passed."""


def watch_run(
    broker: Broker,
    instance_id: str,
    console: Console,
    *,
    timeout_seconds: float | None = None,
    names: Callable[[], Names] | None = None,
    between: Callable[[RunView], None] | None = None,
    clock: Clock | None = None,
) -> RunView:
    """Show the run on `console` until it has ended, and return it.

    `names` tells what to call workers; `between` is called with every view. A coordinator or broker that is away is waited
    for. Raises `DeadlineExceededError` after `timeout_seconds` (the run goes on), `UnknownRunError`.
    """
    clock = clock or SystemClock()
    run = broker.get_run(instance_id)
    schema = schema_of(broker, run)
    ends = None if timeout_seconds is None else clock.monotonic() + timeout_seconds
    if not console.is_terminal:
        return _follow(broker, run, _Lines(console, clock, names), ends, between, clock)
    picture = _Drawing(console, schema, clock, names)
    with Live(console=console, refresh_per_second=8, get_renderable=picture.render, transient=False) as live:
        ended = _follow(broker, run, picture, ends, between, clock)
        picture.limit = None  # the last one stays on the screen, and shows everything
        live.refresh()
        return ended


def schema_of(broker: Broker, run: RunView) -> WorkflowSchema | None:
    """The run's workflow version; None from a broker that does not hand it out."""
    try:
        return broker.get_workflow(run.workflow_id, run.workflow_version)
    except UnsupportedError:
        return None


def _follow(
    broker: Broker,
    run: RunView,
    picture: Picture,
    ends: float | None,
    between: Callable[[RunView], None] | None,
    clock: Clock,
) -> RunView:
    away_since: float | None = None
    while True:
        picture.show(run)
        if between is not None:
            between(run)
        if run.state.is_terminal:
            return run
        if ends is not None and clock.monotonic() >= ends:
            raise DeadlineExceededError(
                f"run {run.instance_id} did not end in time; it goes on: fuseline runs watch {run.instance_id}"
            )
        before = clock.monotonic()
        try:
            run = broker.get_run(run.instance_id)
            away_since = None
        except RetryableError:
            away_since = away_since or before
            if clock.monotonic() - away_since > _PATIENCE_SECONDS:
                raise
        pause = max(_PAUSE_SECONDS, _PAUSE_PER_LOOK * (clock.monotonic() - before))
        time.sleep(min(pause, max(0.0, ends - clock.monotonic())) if ends is not None else pause)


class _Drawing:
    """For terminals: the tree with what runs now."""

    def __init__(
        self, console: Console, schema: WorkflowSchema | None, clock: Clock, names: Callable[[], Names] | None
    ) -> None:
        self.limit: int | None = max(5, console.size.height - _OTHER_ROWS)
        self._schema = schema
        self._clock = clock
        self._names = names
        self._run: RunView | None = None

    def show(self, run: RunView) -> None:
        self._run = run

    def render(self) -> RenderableType:
        if self._run is None:
            return Text()
        now = self._clock.now()
        names = self._names() if self._names is not None else {}
        parts: list[RenderableType] = [
            heading(self._run, now),
            steps_table(self._run, self._schema, now, names, self.limit),
        ]
        if (trouble := ending(self._run)) is not None:
            parts.append(trouble)
        return Group(*parts)


class _Lines:
    """For pipes and logs: one line for each change."""

    def __init__(self, console: Console, clock: Clock, names: Callable[[], Names] | None) -> None:
        self._console = console
        self._clock = clock
        self._names = names
        self._seen: dict[str, tuple[Status, int]] = {}

    def show(self, run: RunView) -> None:
        now = self._clock.now()
        names = self._names() if self._names is not None else {}
        for step in run.steps.values():
            stands = step.state, step.attempt
            if step.state is not Status.PENDING and self._seen.get(step.name) != stands:
                self._seen[step.name] = stands
                self._console.print(change_line(step, now, names))
        if run.state.is_terminal:
            took = duration((run.finished_at or now) - run.created_at)
            self._console.print(
                Text(f"{moment(now)[11:]}  run {run.instance_id} ") + state_text(run.state) + f" in {took}"
            )
            if (trouble := ending(run)) is not None:
                self._console.print(trouble)
