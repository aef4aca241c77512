"""One connection that is opened again for as long as it is wanted."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pika
from pika.connection import Parameters

from fuseline.amqp.failures import connection_error
from fuseline.amqp.limits import LinkLimits
from fuseline.amqp.loops import LoopAdapter, PikaConnection, Timer
from fuseline.amqp.server import ServerInfo
from fuseline.amqp.traffic import Traffic
from fuseline.clock import Clock
from fuseline.errors import BrokerUnavailableError, CallerError

log = logging.getLogger(__name__)

# A blocked server does not even answer a goodbye.
_GOODBYE_SECONDS = 2.0
_BETWEEN_ADDRESSES = re.compile(r"\s*,\s*(?=[a-z]+://|,|$)")


def addresses(urls: str | Sequence[str]) -> list[str]:
    """The addresses of one RabbitMQ: a text with commas between them, or a sequence of such texts.

    Raises `CallerError` when there is none. A comma that no address follows belongs to the address before it.
    """
    texts = [urls] if isinstance(urls, str) else list(urls)
    found = [url.strip() for text in texts for url in _BETWEEN_ADDRESSES.split(text)]
    if not (found := [url for url in found if url]):
        raise CallerError("no AMQP address was given: amqp://user:password@host:5672/vhost")
    return found


def parameters_of(url: str, name: str, limits: LinkLimits) -> Parameters:
    """What pika needs to know for `url`. Raises `CallerError` when it is no AMQP address; the password is never shown."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
            raise ValueError("it must look like amqp://user:password@host:5672/vhost")
        if parts.username is not None and parts.password is None:
            raise ValueError("its user has no password: amqp://user:password@host:5672/vhost")
        parameters = pika.URLParameters(url)
    except (ValueError, TypeError) as error:
        raise CallerError(f"not an AMQP address: {_without_password(url)}: {error}") from error
    asked = parse_qs(parts.query)
    if "heartbeat" not in asked:
        parameters.heartbeat = limits.heartbeat_seconds
    if "socket_timeout" not in asked:
        parameters.socket_timeout = limits.connect_timeout_seconds
    if "stack_timeout" not in asked:
        parameters.stack_timeout = limits.connect_timeout_seconds
    # Both are this module's business: pika would wait in between without telling, or close what is merely blocked.
    parameters.connection_attempts = 1
    parameters.blocked_connection_timeout = None
    parameters.client_properties = {"connection_name": name, "product": "Fuseline"}
    return parameters


def _without_password(url: str) -> str:
    head, separator, tail = url.rpartition("@")
    return f"...@{tail}" if separator and head else url


class Connection:
    """Connects to one of `urls`, and to the next one after each loss, with jittered back-off.

    Which one is the first is drawn, so that the clients of a cluster spread over its nodes.
    `on_up` gets pika's connection each time one is open; `on_down` the reason each time it was lost or could not be
    had; `on_blocked` whether RabbitMQ blocks publishers. All are called from inside pika.
    """

    def __init__(
        self,
        urls: Sequence[str],
        loop: LoopAdapter,
        clock: Clock,
        limits: LinkLimits,
        name: str,
        *,
        on_up: Callable[[PikaConnection], None],
        on_down: Callable[[BrokerUnavailableError], None],
        on_blocked: Callable[[bool], None],
    ) -> None:
        self._parameters = [parameters_of(url, name, limits) for url in urls]
        self._loop = loop
        self._clock = clock
        self._limits = limits
        self._name = name
        self._on_up = on_up
        self._on_down = on_down
        self._on_blocked = on_blocked
        self._attempt = first_of(self._parameters, clock)  # which address is next
        self._failures = 0  # how long to wait
        self._opened_at: float | None = None
        self._pika: PikaConnection | None = None
        self._timer: Timer | None = None
        self._is_closing = False
        self._on_closed: Callable[[], None] | None = None
        self.traffic = Traffic()
        self.is_wanted = False
        self.is_blocked = False
        self.last_error: BrokerUnavailableError | None = None
        self.server: ServerInfo | None = None

    @property
    def pika(self) -> PikaConnection | None:
        """The open connection, or None."""
        return self._pika if self._pika is not None and self._pika.is_open else None

    def flush(self) -> None:
        """Have what was written leave now, not at the end of the loop's turn."""
        if (connection := self.pika) is not None:
            self._loop.flush(connection)

    @property
    def where(self) -> str:
        """Host and port of the address in turn."""
        parameters = self._parameters[self._attempt % len(self._parameters)]
        return f"{parameters.host}:{parameters.port}"

    def want(self) -> None:
        """Open it, if that was not asked before."""
        if not self.is_wanted and not self._is_closing:
            self.is_wanted = True
            self._connect()

    def close(self, on_closed: Callable[[], None]) -> None:
        """Close it for good and call `on_closed`; once only."""
        self._is_closing = True
        self._on_closed = on_closed
        self.is_wanted = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pika is None:
            self._finish()
            return
        if self._pika.is_open:
            self._pika.close()
        # Else it is being opened. pika cannot be told to stop that (its own assertion fails, up to 1.4); it is closed as
        # soon as it is open.
        self._timer = self._loop.call_later(_GOODBYE_SECONDS, self._give_up)

    def _give_up(self) -> None:
        """Nobody answers."""
        self._timer = None
        if self._opened_at is not None and self._pika is not None:
            self._loop.abort(self._pika)
        else:
            self._finish()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is not None:
            on_closed()

    def _connect(self) -> None:
        self._timer = None
        parameters = self._parameters[self._attempt % len(self._parameters)]
        self._pika = self._loop.connect(parameters, self._opened, self._ended, self._ended)

    def _opened(self, connection: PikaConnection) -> None:
        self._opened_at = self._clock.monotonic()
        if self._is_closing:
            connection.close()
            return
        self.last_error = None
        self.server = ServerInfo.from_properties(connection.server_properties)
        connection.add_on_connection_blocked_callback(self._blocked)
        connection.add_on_connection_unblocked_callback(self._unblocked)
        log.debug("%s: connected to %s at %s", self._name, self.server, self.where)
        self._on_up(connection)

    def _blocked(self, _connection: Any, _frame: Any) -> None:
        self._set_blocked(True)

    def _unblocked(self, _connection: Any, _frame: Any) -> None:
        self._set_blocked(False)

    def _set_blocked(self, blocked: bool) -> None:
        if blocked != self.is_blocked:
            self.is_blocked = blocked
            self._on_blocked(blocked)

    def _ended(self, _connection: PikaConnection, reason: BaseException) -> None:
        """It was lost, or could not be opened."""
        self._pika = None
        if self._is_closing:
            self._set_blocked(False)
            self._finish()
            return
        self.last_error = error = connection_error(self.where, reason)
        # A server that accepts connections and drops them at once must not be asked in a hot loop.
        lived = self._clock.monotonic() - self._opened_at if self._opened_at is not None else 0.0
        if lived >= self._limits.reconnect_max_seconds:
            self._failures = 0
        self._opened_at = None
        delay = back_off(self._failures, self._limits, self._clock)
        self._failures += 1
        self._attempt += 1
        log.debug("%s: %s; next try in %.2f s", self._name, error, delay)
        self._timer = self._loop.call_later(delay, self._connect)
        self._set_blocked(False)
        self._on_down(error)


def first_of(addresses_: Sequence[object], clock: Clock) -> int:
    """Which address to begin with, by chance."""
    return int(clock.random() * len(addresses_)) if len(addresses_) > 1 else 0


def back_off(failures: int, limits: LinkLimits, clock: Clock) -> float:
    """Seconds to wait after so many failures in a row: doubling, bounded, less up to half of it by chance."""
    full = min(limits.reconnect_max_seconds, limits.reconnect_min_seconds * 2.0 ** min(failures, 30))
    return full * (1 - clock.random() / 2)
