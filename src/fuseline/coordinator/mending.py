"""A queue of steps that answers nobody, although its server does: deleted and declared anew, when that loses nothing.

RabbitMQ up to 4.2 may not get a quorum queue going again whose node was killed within about a second of its declaration:
it is there, has no leader, and whatever asks it waits. What is in a queue of steps is in storage too and is offered
again by the sweep, so that such a queue may be deleted. No other queue of ours may.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import Final

from fuseline.amqp.consuming import Delivery
from fuseline.amqp.link import Link
from fuseline.amqp.resources import QueueCount
from fuseline.amqp.topology import Topology
from fuseline.clock import Clock
from fuseline.coordinator.declared import Declared, Key, Then
from fuseline.errors import DeadlineExceededError, FuselineError

log = logging.getLogger(__name__)

ASK_SECONDS: Final = 10.0
DELETE_SECONDS: Final = 60.0
AGAIN_AFTER_SECONDS: Final = 600.0
"""A queue is made anew once in this time: what goes wrong again at once has another cause."""


class Answer(StrEnum):
    """What came of asking a queue."""

    GIVEN = "given"
    NONE = "none"  # its server was there all the time
    UNKNOWN = "unknown"


def may_be_made_anew(queue: Sequence[Answer], others: Sequence[Answer]) -> bool:
    """Whether the queue alone is broken: it never answered, and another one between the questions did.

    When a majority of the nodes is away no quorum queue answers, and all do again when they are back: nothing is deleted.
    """
    return bool(queue) and all(answer is Answer.NONE for answer in queue) and Answer.GIVEN in others


class Asking:
    """Asks queues one after the other, each over a connection of its own: one without a leader may hang or take it down."""

    def __init__(self, make_link: Callable[[Callable[[FuselineError], None]], Link]) -> None:
        self._make_link = make_link
        self._was_lost = False
        self._link: Link | None = None

    def fresh_link(self) -> Link:
        """A link that has not asked anything yet; the one before is closed."""
        self.close()
        self._was_lost = False
        self._link = link = self._make_link(self._lost)
        link.start()
        return link

    def close(self) -> None:
        """Ask no more."""
        link, self._link = self._link, None
        if link is not None:
            link.close(0.0, lambda: None)

    def _lost(self, _error: FuselineError) -> None:
        self._was_lost = True

    def ask(self, queue: str, then: Callable[[Answer], None]) -> None:
        """A queue that counts messages answers; one without a leader counts 0, like an empty one, but gives no message."""
        link = self.fresh_link()
        link.count(queue, partial(self._counted, link, queue, then), deadline_seconds=ASK_SECONDS)

    def _counted(
        self, link: Link, queue: str, then: Callable[[Answer], None], count: QueueCount | FuselineError | None
    ) -> None:
        if link is not self._link:
            return  # stopped
        if isinstance(count, FuselineError):
            then(self._failed(count))
        elif count is None or count.messages:  # one that does not exist is another matter
            then(Answer.GIVEN)
        else:
            link.get(queue, partial(self._got, link, then), deadline_seconds=ASK_SECONDS)

    def _got(self, link: Link, then: Callable[[Answer], None], got: Delivery | FuselineError | None) -> None:
        if link is not self._link:
            return
        if isinstance(got, Delivery):  # it has just come
            link.nack(got, requeue=True)
        then(self._failed(got) if isinstance(got, FuselineError) else Answer.GIVEN)

    def _failed(self, error: FuselineError) -> Answer:
        silent = isinstance(error, DeadlineExceededError) and not self._was_lost
        return Answer.NONE if silent else Answer.UNKNOWN


class Mending:
    """Looks at queues of steps that confirm nothing. `make_link(on_down)` makes a link that nothing else uses."""

    def __init__(
        self,
        link: Link,
        declared: Declared,
        topology: Topology,
        clock: Clock,
        make_link: Callable[[Callable[[FuselineError], None]], Link],
    ) -> None:
        self._link = link
        self._declared = declared
        self._topology = topology
        self._clock = clock
        self._make_link = make_link
        self._under_way: dict[Key, list[Then]] = {}
        self._made_anew_at: dict[Key, float] = {}
        self._askings: set[Asking] = set()

    def stop(self) -> None:
        """Ask no more."""
        for asking in self._askings:
            asking.close()

    def mend(self, key: Key, then: Then) -> None:
        """Call `then` when the queue of a workflow version was looked at, and declared, and may be tried again."""
        if self._topology.queue_type != "quorum":
            self._declare(key, [then])
            return
        waiting = self._under_way.setdefault(key, [])
        waiting.append(then)
        if len(waiting) == 1:
            queue = self._topology.steps_queue(*key)
            # The others between: what stalls for a moment stalls for all.
            names = [queue, self._topology.dead_queue, self._topology.parked_queue, queue]
            asking = Asking(self._make_link)
            self._askings.add(asking)
            self._ask(key, asking, names, [])

    def _ask(self, key: Key, asking: Asking, names: list[str], answers: list[Answer]) -> None:
        if answers and answers[0] is not Answer.NONE:
            self._finish(key, asking)
        elif len(answers) < len(names):

            def answered(answer: Answer) -> None:
                self._ask(key, asking, names, [*answers, answer])

            asking.ask(names[len(answers)], answered)
        else:
            self._judge(key, asking, [answers[0], answers[-1]], answers[1:-1])

    def _judge(self, key: Key, asking: Asking, answers: Sequence[Answer], others: Sequence[Answer]) -> None:
        queue = self._topology.steps_queue(*key)
        now = self._clock.monotonic()
        log.debug("%s: %s, others: %s", queue, answers, others)
        if not may_be_made_anew(answers, others):
            log.error(
                "queue %r does not answer, nor do others: is a majority of RabbitMQ's nodes away?", queue
            )
            self._finish(key, asking)
        elif now - self._made_anew_at.get(key, -AGAIN_AFTER_SECONDS) < AGAIN_AFTER_SECONDS:
            log.error(
                "queue %r does not answer, though it was made anew a moment ago: see `rabbitmq-queues quorum_status`;"
                " when all its nodes are up, `rabbitmqctl delete_queue` and `fuseline topology apply %s@%s`",
                queue,
                *key,
            )
            self._finish(key, asking)
        else:
            log.error(
                "queue %r does not answer, though others do: deleting and declaring it anew; its steps are offered again",
                queue,
            )
            self._made_anew_at[key] = now
            deleted = partial(self._deleted, key, asking)
            asking.fresh_link().delete(queue, deleted, deadline_seconds=DELETE_SECONDS)

    def _deleted(self, key: Key, asking: Asking, error: FuselineError | None) -> None:
        if error is not None:
            log.error("queue %r cannot be deleted: %s", self._topology.steps_queue(*key), error)
        self._finish(key, asking)

    def _finish(self, key: Key, asking: Asking) -> None:
        self._askings.discard(asking)
        asking.close()
        self._declare(key, self._under_way.pop(key))

    def _declare(self, key: Key, waiting: list[Then]) -> None:
        def declared(error: FuselineError | None) -> None:
            self._link.renew(self._topology.steps_exchange, self._topology.steps_key(*key))
            for then in waiting:
                then(error)

        self._declared.again(key, declared)
