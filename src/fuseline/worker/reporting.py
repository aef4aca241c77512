"""Reports on their way: those that end at one moment travel together, as one message for each workflow.

A message costs RabbitMQ, its sender and its receiver more than what is in it. A worker that is busy ends many steps in one
turn of its loop; one that is not sends each report alone, and at once either way (ADR 0013).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from fuseline.amqp import codec
from fuseline.amqp.link import Link
from fuseline.amqp.wire import report_id
from fuseline.clock import Clock
from fuseline.errors import FatalError, FuselineError
from fuseline.worker.leases import Held, Key
from fuseline.worker.reports import Sealed

MAX_TOGETHER: Final = 32
BYTES_TOGETHER: Final = 64 * 1024
"""Reports of one message, and what they have in all. A larger one goes alone (P6)."""

OnSent = Callable[[FuselineError | None], None]


class Send(Protocol):
    """Publishes to a workflow's exchange until it is confirmed; `on_sent` gets None, or why no further try can help."""

    def __call__(
        self, workflow_id: str, body: bytes, properties: codec.Properties, on_sent: OnSent
    ) -> None: ...


@dataclass(slots=True)
class _Report:
    key: Key
    is_fused: bool
    body: bytes
    traceparent: str | None
    on_sent: OnSent


class Reporting:
    """Takes reports of one turn of the loop, and sends them at its end."""

    def __init__(self, link: Link, clock: Clock, send: Send) -> None:
        self._link = link
        self._clock = clock
        self._send = send
        self._waiting: dict[str, list[_Report]] = {}

    def report(self, held: Held, sealed: Sealed, on_sent: OnSent) -> None:
        """Have it sent, at the end of this turn."""
        is_fused = held.continued_from is not None
        one = _Report(held.key, is_fused, _body(held, sealed), held.traceparent, on_sent)
        if not self._waiting:
            self._link.call_soon(self.flush)
        self._waiting.setdefault(held.assignment.workflow_id, []).append(one)

    def flush(self) -> None:
        """Send what was taken, before this turn is over."""
        waiting, self._waiting = self._waiting, {}
        for workflow_id, reports in waiting.items():
            for part in _parts(reports):
                self._send_part(workflow_id, part)

    def _send_part(self, workflow_id: str, part: list[_Report]) -> None:
        if len(part) == 1:
            self._send_alone(workflow_id, part[0])
            return
        properties = codec.properties(
            codec.REPORTS,
            message_id=self._clock.new_id(),
            timestamp=self._clock.now(),
            content_type=codec.LINES_CONTENT_TYPE,
        )
        body = b"\n".join([one.body for one in part])
        self._send(workflow_id, body, properties, partial(self._sent, workflow_id, part))

    def _send_alone(self, workflow_id: str, one: _Report) -> None:
        properties = codec.properties(
            codec.REPORT,
            message_id=report_id(*one.key, is_fused=one.is_fused),
            timestamp=self._clock.now(),
            correlation_id=one.key[0],
            traceparent=one.traceparent,
        )
        self._send(workflow_id, one.body, properties, one.on_sent)

    def _sent(self, workflow_id: str, part: list[_Report], error: FuselineError | None) -> None:
        if error is not None and not isinstance(error, FatalError):
            for one in part:  # RabbitMQ refuses one of them, and does not say which
                self._send_alone(workflow_id, one)
            return
        for index, one in enumerate(part):
            try:
                one.on_sent(error)
            except BaseException:
                # The caller's mistake goes up; those after it are still told.
                if rest := part[index + 1 :]:
                    self._link.call_soon(partial(self._sent, workflow_id, rest, error))
                raise


def _parts(reports: list[_Report]) -> Iterator[list[_Report]]:
    """In their order; what has a trace context is alone, for a message has one of them."""
    part: list[_Report] = []
    size = 0
    for one in reports:
        length = len(one.body)
        if one.traceparent is not None:
            yield [one]
            continue
        if part and (len(part) >= MAX_TOGETHER or size + length > BYTES_TOGETHER):
            yield part
            part, size = [], 0
        part.append(one)
        size += length
    if part:
        yield part


def _body(held: Held, sealed: Sealed) -> bytes:
    """The report as its executor encoded it, and what there is to say about step fusion."""
    following = held.following
    if following is None and held.continued_from is None:
        return sealed.body
    said: dict[str, Any] = {}  # as `Fusion` reads it
    if following is not None:
        said["continues_with"] = following.step_name
    if held.continued_from is not None:
        said["continued_from"] = held.continued_from
    return sealed.body[:-1] + b"," + codec.encode_plain(said)[1:]
