"""Events for whoever listens, at next to no cost where nobody does (P8).

Whether a queue is bound for an event only publishing tells, and a message for each event that nobody hears would cost a
coordinator a good part of its speed. So the events of a moment (50 ms, many hops of a chain; a quarter of a second where
nobody has listened lately) are asked for together: one empty message, a probe, with all of their keys. RabbitMQ returns it
when no queue is bound for any of them, and then none is sent; else all are. The keys travel as `BCC`, which RabbitMQ takes
away before a listener gets the probe: nobody learns of runs that he may not watch.

Where nobody has listened lately not even that is asked at first, for each run has keys of its own: only whether anybody
listens to any run, by a few keys without one (`Topology.any_run_key`; ADR 0015).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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
"""Probes under way, and those that moments may still take; further events are dropped (P6): they are for watching, and
RabbitMQ is not well then."""
PUBLISH_SECONDS: Final = 20.0


_Told = tuple[str, str, str, float, Sequence[Notice]]
"""What one outcome has to tell: (workflow_id, version, instance_id, when, what)."""


@dataclass(slots=True)
class _Moment:
    """What came together. `is_heard`: somebody may listen to one of its runs. `unanswered`: probes about that.

    `probes`: how many it may take to ask for its runs, at most.
    """

    told: list[_Told]
    probes: int
    is_heard: bool
    unanswered: int = 0


@dataclass(slots=True)
class _Asked:
    """What one probe asks for. `is_heard`: None until RabbitMQ has answered."""

    told: list[_Told]
    is_heard: bool | None = None


class Announcer:
    """Publishes on one link, in order, and waits for nobody."""

    def __init__(self, link: Link, topology: Topology, clock: Clock) -> None:
        self._link = link
        self._topology = topology
        self._clock = clock
        self._gathered: list[_Told] = []
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
            if len(self._asked) + sum(moment.probes for moment in self._moments) >= MAX_PROBES:
                return
            self._link.call_later(QUIET_GATHER_SECONDS if self._is_quiet else GATHER_SECONDS, self._ask)
        self._gathered.append(
            (outcome.workflow_id, outcome.version, outcome.instance_id, outcome.at, notices)
        )
        self._count += len(notices)
        if self._count >= EVENTS_AT_ONCE:
            self._ask()

    def stop(self) -> None:
        """Wait for no more events, nor for answers: when they come, nothing can be sent any more.

        Where somebody has listened lately all of them are told, whoever may be listening still.
        """
        told, _ = self._take()
        if self._is_quiet:
            return
        for asked in self._asked:
            asked.is_heard = asked.is_heard is not False
        self._tell_decided()
        for moment in self._moments:
            if moment.is_heard or moment.unanswered:
                self._tell_all(moment.told)
        self._moments.clear()
        self._tell_all(told)

    def _take(self) -> tuple[list[_Told], int]:
        taken = self._gathered, self._count
        self._gathered, self._count = [], 0
        return taken

    def _ask(self) -> None:
        """Whether anybody listens to any run; where somebody did lately, to these."""
        told, events = self._take()
        if not told:
            return
        moment = _Moment(told, probes=-(-events // KEYS_AT_ONCE), is_heard=not self._is_quiet)
        self._moments.append(moment)
        if moment.is_heard:
            self._go_on()
        else:
            self._ask_of_any(moment)

    def _ask_of_any(self, moment: _Moment) -> None:
        keys = self._keys_of_any(moment.told)
        parts = [keys[first : first + KEYS_AT_ONCE] for first in range(0, len(keys), KEYS_AT_ONCE)]
        moment.unanswered = len(parts)

        # It stays quiet: somebody who listens to one run is no reason to ask for all others five times as often.
        def answered(error: FuselineError | None) -> None:
            moment.unanswered -= 1
            moment.is_heard |= error is None
            self._go_on()

        for part in parts:
            self._probe(part, answered)

    def _keys_of_any(self, told: Iterable[_Told]) -> list[str]:
        """Each kind of event of each workflow, once: a moment has thousands of events, and a few of these."""
        kinds: dict[str, dict[str, None]] = {}
        for workflow_id, _, _, _, notices in told:
            of_workflow = kinds.get(workflow_id)
            if of_workflow is None:
                of_workflow = kinds[workflow_id] = {}
            for notice in notices:
                of_workflow[notice.kind] = None
        return [
            self._topology.any_run_key(workflow_id, kind)
            for workflow_id, of_workflow in kinds.items()
            for kind in of_workflow
        ]

    def _go_on(self) -> None:
        """In the order of the moments, whatever order the answers come in."""
        while self._moments and (self._moments[0].is_heard or not self._moments[0].unanswered):
            moment = self._moments.popleft()
            if moment.is_heard:
                self._ask_of_runs(moment.told)

    def _ask_of_runs(self, told: Iterable[_Told]) -> None:
        """In parts for a probe each. What is of one run is in one of them: else what comes later could be told earlier."""
        runs: dict[tuple[str, str], list[_Told]] = {}
        for one in told:
            runs.setdefault((one[0], one[2]), []).append(one)
        part: list[_Told] = []
        keys: list[str] = []
        for run, of_run in runs.items():
            prefix = self._topology.events_prefix(*run)
            # Once each: a run has thousands of events, and a few kinds of them.
            kinds = dict.fromkeys([notice.kind for one in of_run for notice in one[4]])
            keys += [prefix + encode_part(kind) for kind in kinds]
            part += of_run
            if len(keys) >= KEYS_AT_ONCE:
                self._ask_of_part(part, keys)
                part, keys = [], []
        if keys:
            self._ask_of_part(part, keys)

    def _ask_of_part(self, part: list[_Told], keys: list[str]) -> None:
        asked = _Asked(part)
        self._asked.append(asked)

        def answered(error: FuselineError | None) -> None:
            asked.is_heard = error is None
            if asked.is_heard:
                self._quiet_from = self._clock.monotonic() + HEARD_SECONDS
            self._tell_decided()

        self._probe(keys, answered)

    def _probe(self, keys: list[str], answered: Callable[[FuselineError | None], None]) -> None:
        # No key of its own, which a listener would see.
        self._publish("", b"{}", codec.PROBE, None, answered, headers={"BCC": keys})

    def _tell_decided(self) -> None:
        """In the order that they were asked for in, whatever order the answers come in."""
        while self._asked and self._asked[0].is_heard is not None:
            asked = self._asked.popleft()
            if asked.is_heard:
                self._tell_all(asked.told)

    def _tell_all(self, told: Iterable[_Told]) -> None:
        for one in told:
            prefix = self._topology.events_prefix(one[0], one[2])
            for notice in one[4]:
                self._tell_one(prefix + encode_part(notice.kind), one, notice)

    def _tell_one(self, key: str, told: _Told, notice: Notice) -> None:
        workflow_id, version, instance_id, at, _ = told
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
