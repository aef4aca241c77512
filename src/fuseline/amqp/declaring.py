"""Declaring, comparing and counting: small errands, each on a channel of its own.

A refusal (404, 403, 406) closes the channel, so that none of this may happen where messages travel. An errand is a
generator that yields one operation at a time, gets its answer, or has `Refused` thrown in. A lost connection starts it
again from the beginning: all of it is safe to repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from pika.channel import Channel
from pika.exceptions import ChannelClosed

from fuseline.amqp.connection import Connection
from fuseline.amqp.failures import ACCESS_REFUSED, NOT_FOUND, channel_error
from fuseline.amqp.loops import LoopAdapter, Timer
from fuseline.amqp.resources import Binding, Exchange, Finding, Queue, QueueCount, Resource, Verdict
from fuseline.amqp.turn import Turn
from fuseline.errors import BrokerUnavailableError, DeadlineExceededError, FuselineError

Result = TypeVar("Result")

Answered: TypeAlias = Callable[[Any], None]
Operation: TypeAlias = Callable[[Channel, Answered], None]
Steps: TypeAlias = Generator[Operation, Any, Result]


class Refused(Exception):
    """The server closed the channel over the operation."""

    def __init__(self, reason: ChannelClosed) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.code = int(reason.reply_code)
        self.text = str(reason.reply_text)


class Errand(Generic[Result]):
    """One errand under way; `on_done` gets its result or the error, once, before the deadline."""

    def __init__(
        self,
        steps: Callable[[], Steps[Result]],
        on_done: Callable[[Result | FuselineError], None],
        on_over: Callable[[Errand[Any]], None],
        deadline_seconds: float,
        *,
        connection: Connection,
        loop: LoopAdapter,
        turn: Turn,
    ) -> None:
        self._make_steps = steps
        self._on_done = on_done
        self._on_over = on_over
        self._connection = connection
        self._turn = turn
        self._steps: Steps[Result] | None = None
        self._operation: Operation | None = None
        self._channel: Channel | None = None
        self._is_over = False
        self._timer: Timer = loop.call_later(deadline_seconds, self._late)

    def begin(self) -> None:
        """Start, or start again, if the connection is open."""
        if self._is_over or self._connection.pika is None:
            return
        self._steps = self._make_steps()
        self._advance(next)

    def fail(self, error: FuselineError) -> None:
        """Give up."""
        self._finish(error)

    def _advance(self, resume: Callable[[Steps[Result]], Operation]) -> None:
        assert self._steps is not None
        try:
            self._operation = resume(self._steps)
        except StopIteration as end:
            self._finish(end.value)
        except FuselineError as error:
            self._finish(error)
        else:
            self._do()

    def _do(self) -> None:
        connection = self._connection.pika
        if self._channel is not None and self._channel.is_open and self._operation is not None:
            self._operation(self._channel, self._answered)
        elif connection is not None:
            self._channel = connection.channel(on_open_callback=self._opened)
            self._channel.add_on_close_callback(self._closed)

    def _opened(self, channel: Channel) -> None:
        if channel is self._channel and not self._is_over:
            self._do()
        elif channel.is_open:
            channel.close()

    def _answered(self, frame: Any) -> None:
        if not self._is_over:
            self._advance(lambda steps: steps.send(frame.method))

    def _closed(self, channel: Channel, reason: Exception) -> None:
        if channel is not self._channel or self._is_over:
            return
        self._channel = None
        if isinstance(reason, ChannelClosed):
            refused = Refused(reason)
            self._advance(lambda steps: steps.throw(refused))
        # Else the connection is lost; the next one begins again.

    def _late(self) -> None:
        error = self._connection.last_error
        if error is None and self._connection.pika is None:
            error = BrokerUnavailableError(f"RabbitMQ at {self._connection.where}: no connection in time")
        self._finish(error or DeadlineExceededError("RabbitMQ did not answer in time"))

    def _finish(self, outcome: Result | FuselineError) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._timer.cancel()
        channel, self._channel = self._channel, None
        if channel is not None and channel.is_open:
            channel.close()
        self._on_over(self)
        self._turn.add(partial(self._on_done, outcome))


class Errands:
    """The errands under way on one connection, which opens with the first of them."""

    def __init__(self, connection: Connection, loop: LoopAdapter, turn: Turn) -> None:
        self._connection = connection
        self._loop = loop
        self._turn = turn
        self._errands: set[Errand[Any]] = set()

    def run(
        self,
        steps: Callable[[], Steps[Result]],
        on_done: Callable[[Result | FuselineError], None],
        deadline_seconds: float,
    ) -> None:
        """One more."""
        errand = Errand(
            steps,
            on_done,
            self._errands.discard,
            deadline_seconds,
            connection=self._connection,
            loop=self._loop,
            turn=self._turn,
        )
        self._errands.add(errand)
        self._connection.want()
        errand.begin()

    def begin(self) -> None:
        """The connection is there: all of them start, or start again."""
        for errand in list(self._errands):
            errand.begin()

    def fail(self, error: FuselineError) -> None:
        """Give up all of them."""
        for errand in list(self._errands):
            errand.fail(error)


def declaring(resources: Sequence[Resource]) -> Steps[None]:
    """Declare all in order; what is there already stays as it is."""
    for resource in resources:
        try:
            yield _declare(resource)
        except Refused as refused:
            raise channel_error(str(resource), refused.reason) from refused


def verifying(resources: Sequence[Resource]) -> Steps[list[Verdict]]:
    """Compare all with the server.

    A passive declaration tells whether a thing exists and no more. Only when it does, an active one follows, which then
    changes nothing: it is refused if the arguments differ.
    """
    verdicts: list[Verdict] = []
    for resource in resources:
        if isinstance(resource, Binding):
            told = "AMQP cannot ask for bindings; applying the topology makes sure of them"
            verdicts.append(Verdict(resource, Finding.UNKNOWN, told))
            continue
        try:
            yield _declare_passively(resource)
        except Refused as refused:
            finding = {NOT_FOUND: Finding.MISSING, ACCESS_REFUSED: Finding.UNKNOWN}.get(refused.code)
            verdicts.append(Verdict(resource, finding or Finding.DIFFERS, refused.text))
            continue
        try:
            yield _declare(resource)
        except Refused as refused:
            if refused.code == ACCESS_REFUSED:
                told = f"it exists; this user may not compare its arguments: {refused.text}"
                verdicts.append(Verdict(resource, Finding.UNKNOWN, told))
            else:
                verdicts.append(Verdict(resource, Finding.DIFFERS, refused.text))
        else:
            verdicts.append(Verdict(resource, Finding.OK))
    return verdicts


def counting(queue: str) -> Steps[QueueCount | None]:
    """What waits in a queue; None when there is no such queue."""
    try:
        answer = yield _declare_passively(Queue(queue))
    except Refused as refused:
        if refused.code == NOT_FOUND:
            return None
        raise channel_error(f"queue {queue!r}", refused.reason) from refused
    return QueueCount(answer.message_count, answer.consumer_count)


def deleting(queue: str) -> Steps[None]:
    """Delete a queue, whatever is in it."""
    try:
        yield lambda channel, answered: channel.queue_delete(queue, callback=answered)
    except Refused as refused:
        if refused.code != NOT_FOUND:
            raise channel_error(f"queue {queue!r}", refused.reason) from refused


def _declare(resource: Resource) -> Operation:
    def operation(channel: Channel, answered: Answered) -> None:
        match resource:
            case Exchange(name, kind):
                channel.exchange_declare(name, kind, durable=True, callback=answered)
            case Queue(name, arguments):
                channel.queue_declare(name, durable=True, arguments=dict(arguments), callback=answered)
            case Binding(source, queue, key):
                channel.queue_bind(queue, source, key, callback=answered)

    return operation


def _declare_passively(resource: Exchange | Queue) -> Operation:
    def operation(channel: Channel, answered: Answered) -> None:
        if isinstance(resource, Exchange):
            channel.exchange_declare(resource.name, resource.kind, passive=True, callback=answered)
        else:
            channel.queue_declare(resource.name, passive=True, callback=answered)

    return operation
