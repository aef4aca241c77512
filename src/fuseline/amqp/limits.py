"""The bounds of a link (P6) and how patiently it reconnects."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """Bounds of one `Link`.

    `max_in_flight` messages are sent without a confirm at most; `max_pending` messages and `max_pending_bytes` wait in all,
    those included, before `publish` fails with `BrokerBusyError` (one message of any size is always taken).
    Reconnecting waits `reconnect_min_seconds`, doubling up to `reconnect_max_seconds`, less up to half of it by chance.
    `heartbeat_seconds` is AMQP's own heartbeat, `connect_timeout_seconds` the time for one attempt.
    """

    max_in_flight: int = 4_096
    max_pending: int = 50_000
    max_pending_bytes: int = 256 * 1024 * 1024
    reconnect_min_seconds: float = 0.1
    reconnect_max_seconds: float = 10.0
    heartbeat_seconds: int = 30
    connect_timeout_seconds: float = 10.0
