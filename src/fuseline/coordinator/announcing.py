"""Events for whoever listens, at next to no cost where nobody does (P8).

Whether a queue is bound for an event only publishing tells, and a message for each event that nobody hears would cost a
coordinator a good part of its speed. So the events of a moment (50 ms, many hops of a chain; a quarter of a second where
nobody has listened lately) are asked for together: one empty message, a probe, with all of their keys. RabbitMQ returns it
when no queue is bound for any of them, and then none is sent; else all are. The keys travel as `BCC`, which RabbitMQ takes
away before a listener gets the probe: nobody learns of runs that he may not watch.

Where nobody has listened lately not even that is asked, for each run has keys of its own: only whether anybody listens to
any run, by a few keys without one (`Topology.events_patterns`; ADR 0015).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fuseline.amqp import codec
from fuseline.amqp.link import Link
from fuseline.amqp.topology import Topology, encode_part
from fuseline.clock import Clock
from fuseline.engine.effects import Notice
from fuseline.errors import FuselineError, InvalidMessageError
from fuseline.ledger import Outcome

log = logging.getLogger(__name__)

GATHER_SECONDS: Final = 0.05
"""How long an event may wait for others: a probe for each hop of a lone run would be a third of its messages."""
QUIET_GATHER_SECONDS: Final = 0.25
"""The same where nobody has listened for `HEARD_SECONDS`. A busy coordinator has thousands of events in that time, of a few
kinds: RabbitMQ looks for listeners once for each kind of event of a workflow."""
HEARD_SECONDS: Final = 60.0
EVENTS_AT_ONCE: Final = 10_000
"""More than this do not wait (P6)."""
KEYS_AT_ONCE: Final = 250
"""Keys of one probe, roughly, for those of a run stay together: they go into one frame of headers."""
MAX_PROBES: Final = 50
"""Moments and probes that wait for answers; further events are dropped (P6): they are for watching, and RabbitMQ is not
well then."""
PUBLISH_SECONDS: Final = 20.0


_Run = tuple[str, str, str]
"""(workflow_id, version, instance_id)."""


_Told = list[tuple[float, Sequence[Notice]]]
"""(when, what) of one run."""


@dataclass(slots=True)
class _Asked:
    """The events of some runs that one probe is about, under these keys. `is_heard`: None until RabbitMQ has answered."""

    runs: list[tuple[_Run, _Told]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    is_heard: bool | None = None


@dataclass(slots=True)
class _Moment:
    """The events of a moment, and whether anybody listens to any run at all. `unanswered`: probes about that."""

    runs: dict[_Run, _Told]
    is_heard: bool = False
    unanswered: int = 0


class Announcer:
    """Publishes on one link, in order, and waits for nobody."""

    def __init__(self, link: Link, topology: Topology, clock: Clock) -> None:
        self._link = link
        self._topology = topology
        self._clock = clock
        self._gathered: dict[_Run, _Told] = {}
        self._count = 0  # of events in it
        self._moments: deque[_Moment] = deque()
        self._asked: deque[_Asked] = deque()
        self._quiet_from = 0.0

    @property
    def _is_quiet(self) -> bool:
        return self._clock.monotonic() >= self._quiet_from

    def tell(self, outcome: Outcome) -> None:
        """Have the outcome's notices told, soon."""
        notices = outcome.notices
        if not notices:
            return
        if not self._gathered:
            if len(self._moments) + len(self._asked) >= MAX_PROBES:
                return
            self._link.call_later(QUIET_GATHER_SECONDS if self._is_quiet else GATHER_SECONDS, self._ask)
        run = (outcome.workflow_id, outcome.version, outcome.instance_id)
        told = self._gathered.get(run)
        if told is None:
            told = self._gathered[run] = []
        told.append((outcome.at, notices))
        self._count += len(notices)
        if self._count >= EVENTS_AT_ONCE:
            self._ask()

    def stop(self) -> None:
        """Wait for no more events, nor for answers: when they come, nothing can be sent any more.

        Where somebody has listened lately all of them are told, whoever may be listening still.
        """
        if self._is_quiet:
            self._ask()
            return
        for asked in self._asked:
            asked.is_heard = asked.is_heard is not False
        self._tell_decided()
        moments = [moment.runs for moment in self._moments] + [self._take()]
        self._moments.clear()
        for runs in moments:
            self._tell_all(runs.items())

    def _take(self) -> dict[_Run, _Told]:
        gathered, self._gathered, self._count = self._gathered, {}, 0
        return gathered

    def _ask(self) -> None:
        """Whether anybody listens to any run, or where somebody did lately, to these."""
        runs = self._take()
        if not runs:
            return
        moment = _Moment(runs, is_heard=not self._is_quiet)
        self._moments.append(moment)
        if moment.is_heard:
            self._ask_of_runs()
            return
        keys = self._keys_of_any(runs)
        parts = [keys[first : first + KEYS_AT_ONCE] for first in range(0, len(keys), KEYS_AT_ONCE)]
        moment.unanswered = len(parts)

        def answered(error: FuselineError | None) -> None:
            moment.unanswered -= 1
            if error is None:
                moment.is_heard = True
                self._somebody_listens()
            self._ask_of_runs()

        for part in parts:
            self._probe(part, answered)

    def _keys_of_any(self, runs: Mapping[_Run, _Told]) -> list[str]:
        """Each kind of event of each workflow, once: a moment has thousands of events, and a few of these."""
        kinds: dict[str, dict[str, None]] = {}
        for (workflow_id, _, _), told in runs.items():
            of_workflow = kinds.get(workflow_id)
            if of_workflow is None:
                of_workflow = kinds[workflow_id] = {}
            for _, notices in told:
                for notice in notices:
                    of_workflow[notice.kind] = None
        return [
            self._topology.any_run_key(workflow_id, kind)
            for workflow_id, of_workflow in kinds.items()
            for kind in of_workflow
        ]

    def _ask_of_runs(self) -> None:
        """In the order of the moments, whatever order the answers come in."""
        while self._moments and (self._moments[0].is_heard or not self._moments[0].unanswered):
            moment = self._moments.popleft()
            if moment.is_heard:
                for asked in self._parts(moment.runs):
                    self._ask_of(asked)

    def _parts(self, runs: Mapping[_Run, _Told]) -> Iterator[_Asked]:
        """In parts for a probe each."""
        asked = _Asked()
        for run, told in runs.items():
            prefix = self._topology.events_prefix(run[0], run[2])
            # Once each: a run has thousands of events, and a few kinds of them.
            kinds = dict.fromkeys([notice.kind for _, notices in told for notice in notices])
            asked.keys += [prefix + encode_part(kind) for kind in kinds]
            asked.runs.append((run, told))
            if len(asked.keys) >= KEYS_AT_ONCE:
                yield asked
                asked = _Asked()
        if asked.keys:
            yield asked

    def _ask_of(self, asked: _Asked) -> None:
        self._asked.append(asked)

        def answered(error: FuselineError | None) -> None:
            asked.is_heard = error is None
            if asked.is_heard:
                self._somebody_listens()
            self._tell_decided()

        self._probe(asked.keys, answered)

    def _somebody_listens(self) -> None:
        self._quiet_from = self._clock.monotonic() + HEARD_SECONDS

    def _probe(self, keys: Sequence[str], answered: Callable[[FuselineError | None], None]) -> None:
        first, *others = keys
        self._publish(first, b"{}", codec.PROBE, None, answered, headers={"BCC": others} if others else None)

    def _tell_decided(self) -> None:
        """In the order that they were asked for in, whatever order the answers come in."""
        while self._asked and self._asked[0].is_heard is not None:
            asked = self._asked.popleft()
            if asked.is_heard:
                self._tell_all(asked.runs)

    def _tell_all(self, runs: Iterable[tuple[_Run, _Told]]) -> None:
        for run, told in runs:
            prefix = self._topology.events_prefix(run[0], run[2])
            for at, notices in told:
                for notice in notices:
                    self._tell_one(prefix + encode_part(notice.kind), at, run, notice)

    def _tell_one(self, key: str, at: float, run: _Run, notice: Notice) -> None:
        workflow_id, version, instance_id = run
        body = {
            "kind": notice.kind,
            "at": at,
            "workflow_id": workflow_id,
            "workflow_version": version,
            "instance_id": instance_id,
            "step_name": notice.step,
            "attempt": notice.attempt,
            **notice.detail,
        }
        try:
            encoded = codec.encode(body)
        except InvalidMessageError as error:
            log.warning("an event of run %s is not told: %s", instance_id, error)
        else:
            self._publish(key, encoded, codec.EVENT, instance_id, _ignore)

    def _publish(
        self,
        key: str,
        body: bytes,
        kind: str,
        instance_id: str | None,
        on_done: Callable[[FuselineError | None], None],
        headers: dict[str, Any] | None = None,
    ) -> None:
        self._link.publish(
            self._topology.events_exchange,
            key,
            body,
            codec.properties(
                kind,
                message_id=self._clock.new_id(),
                timestamp=self._clock.now(),
                correlation_id=instance_id,
                headers=headers,
            ),
            on_done=on_done,
            deadline_seconds=PUBLISH_SECONDS,
            mandatory=kind == codec.PROBE,
        )


def _ignore(_error: FuselineError | None) -> None:
    """An event that got lost is none that somebody has to have."""
