"""What can be set about a worker."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fuseline.errors import CallerError
from fuseline.settings import Settings

ExecutorName: TypeAlias = Literal["thread", "process", "async"]

_DEFAULT_CONCURRENCY: dict[str, int] = {
    "thread": min(32, (os.cpu_count() or 1) + 4),
    "process": os.cpu_count() or 1,
    "async": 100,
}


@dataclass(frozen=True, slots=True)
class Options:
    """`concurrency` steps run at once, and as many deliveries of a queue are taken. Times in seconds.

    `executor`: where sync bodies run. "thread" and "async" run them in threads (and differ in how many by default),
    "process" in processes. Async bodies always run on a loop of their own.
    """

    concurrency: int
    executor: ExecutorName = "thread"
    heartbeat_seconds: float = 10.0
    claim_after_seconds: float = 10.0
    drain_seconds: float = 30.0
    call_seconds: float = 30.0
    max_message_bytes: int = 8 * 1024 * 1024
    fusion_hops: int = 0
    fusion_seconds: float = 1.0

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        concurrency: int | None = None,
        executor: ExecutorName = "thread",
        drain_seconds: float | None = None,
    ) -> Options:
        """The settings, and what was asked for. Raises `CallerError` naming what makes no sense."""
        if executor not in _DEFAULT_CONCURRENCY:
            raise CallerError(f"executor {executor!r}: 'thread', 'process' or 'async'")
        if concurrency is None:
            concurrency = _DEFAULT_CONCURRENCY[executor]
        if type(concurrency) is not int or not 1 <= concurrency <= 10_000:
            raise CallerError(f"concurrency {concurrency!r}: a whole number from 1 to 10000")
        drain = settings.drain_seconds if drain_seconds is None else drain_seconds
        if drain < 0:
            raise CallerError(f"drain_seconds {drain!r}: not negative")
        return cls(
            concurrency=concurrency,
            executor=executor,
            heartbeat_seconds=settings.heartbeat_seconds,
            claim_after_seconds=settings.claim_after_seconds,
            drain_seconds=drain,
            call_seconds=settings.call_seconds,
            max_message_bytes=settings.max_message_bytes,
            fusion_hops=settings.fusion_hops,
            fusion_seconds=settings.fusion_seconds,
        )
