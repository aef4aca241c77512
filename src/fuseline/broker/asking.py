"""Asking a coordinator: commands over RabbitMQ, and their answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import Topology
from fuseline.amqp.wire import Command, Reply, read
from fuseline.clock import Clock
from fuseline.errors import (
    BrokerUnavailableError,
    DeadlineExceededError,
    MessageTooLargeError,
    UnroutableError,
)

AT_ONCE: Final = 4
"""Commands of one caller that are under way together: a coordinator has the next one when it has done with one."""


class Asking:
    """Sends commands and waits for the answers, `call_seconds` for each at most. Thread-safe."""

    def __init__(
        self,
        link: BackgroundLink,
        topology: Topology,
        clock: Clock,
        *,
        call_seconds: float,
        max_message_bytes: int,
    ) -> None:
        self._link = link
        self._topology = topology
        self._clock = clock
        self._call_seconds = call_seconds
        self._max_message_bytes = max_message_bytes

    def ask(self, name: str, args: dict[str, Any], exchange: str | None = None) -> Any:
        """The answer to one command. Raises the error that the coordinator met, as what it was there."""
        return self._answer(name, self._send(self._body(name, args), exchange))

    def ask_all(self, name: str, each: Sequence[dict[str, Any]], *, first_alone: bool = False) -> list[Any]:
        """The answers to several, a few of which are under way at once; all are encoded before the first is sent.

        `first_alone`: the others wait for its answer, as they build on it. Raises the first error in their order. What was
        sent by then may take effect, what comes after it is not sent. How deep they nest is looked at in the first one: what
        the others have beside that must have been looked at before, as the inputs of runs are.
        """
        waiting: deque[Callable[[], Delivery]] = deque()
        answers: list[Any] = []
        bodies = [self._body(name, args) for args in each[:1]]
        bodies += [self._body(name, args, codec.UNBOUNDED) for args in each[1:]]
        for body in bodies:
            if len(waiting) == AT_ONCE or (waiting and first_alone and not answers):
                answers.append(self._answer(name, waiting.popleft()))
            waiting.append(self._send(body, None))
        return answers + [self._answer(name, one) for one in waiting]

    def _body(self, name: str, args: dict[str, Any], nesting: int = codec.MAX_NESTING) -> bytes:
        body = codec.encode(Command(name=name, args=args), nesting=nesting)
        if len(body) > self._max_message_bytes:
            raise MessageTooLargeError(
                f"the {name} command has {len(body)} bytes, over {self._max_message_bytes}"
            )
        return body

    def _send(self, body: bytes, exchange: str | None) -> Callable[[], Delivery]:
        properties = codec.properties(
            codec.COMMAND, message_id=self._clock.new_id(), timestamp=self._clock.now()
        )
        return self._link.begin_rpc(
            exchange or self._topology.commands_exchange,
            "",
            body,
            properties,
            deadline_seconds=self._call_seconds,
        )

    def _answer(self, name: str, answered: Callable[[], Delivery]) -> Any:
        try:
            answer = answered()
        except UnroutableError as error:
            raise BrokerUnavailableError(
                f"RabbitMQ has no {self._topology.commands_queue!r} queue: start a coordinator "
                f"(`fuseline coordinator`), or apply the topology (`fuseline topology apply`)"
            ) from error
        except DeadlineExceededError as error:
            raise DeadlineExceededError(
                f"no coordinator answered {name!r} within {self._call_seconds:g} s: is one running?"
            ) from error
        return read(Reply, answer.body).value()
