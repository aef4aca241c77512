"""Reports that overtook the one they go on from: with several coordinators, each takes some of a worker's messages.

A worker that goes on with a step (step fusion) reports it soon after the one before. The coordinator that has this report
cannot tell yet whether the worker is the step's holder. It asks again a few times within a moment; then the report goes to
the end of the queue, so that it holds up nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fuseline.amqp.consuming import Delivery
from fuseline.coordinator.outbox import Outbox
from fuseline.coordinator.pipeline import Item, Pipeline, as_redelivered
from fuseline.coordinator.settle import Ticket
from fuseline.engine.effects import Verdict
from fuseline.errors import StorageUnavailableError

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.01
LONGEST_SECONDS: Final = 1.0
"""Pauses double up to about this; then the report is put behind the others."""


@dataclass(slots=True)
class _Early:
    delivery: Delivery
    item: Item
    ticket: Ticket


class EarlyReports:
    """Asks again, and sends to the end of the queue what is still too early then."""

    def __init__(
        self,
        pipeline: Pipeline,
        outbox: Outbox,
        call_later: Callable[[float, Callable[[], None]], object],
        on_applied: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_applied`: rows were saved, and some of them may be due soon."""
        self._pipeline = pipeline
        self._outbox = outbox
        self._call_later = call_later
        self._on_applied = on_applied
        self._waiting: list[_Early] = []
        self._pause: float | None = None

    def hold(self, delivery: Delivery, item: Item, ticket: Ticket) -> None:
        """One more, whose `ticket` waits for it."""
        ticket.expect()
        self._waiting.append(_Early(delivery, item, ticket))
        if self._pause is None:
            self._arm(FIRST_PAUSE_SECONDS)

    def _arm(self, pause: float) -> None:
        self._pause = pause
        self._call_later(pause, self._again)

    def _again(self) -> None:
        self._pipeline.finish()  # there may be some more among it, which are asked about with the others
        if not self._waiting:
            self._pause = None
            return
        pause, self._pause = self._pause or FIRST_PAUSE_SECONDS, None
        held, self._waiting = self._waiting, []
        try:
            outcomes = self._pipeline.apply([one.item for one in held])
        except StorageUnavailableError as error:
            log.warning("reports that came too early wait for storage: %s", error)
            for one in held:
                one.item.what = as_redelivered(one.item.what)
            self._waiting = held + self._waiting
            self._arm(LONGEST_SECONDS)
            return
        for one, outcome in zip(held, outcomes, strict=True):
            if outcome.verdict is not Verdict.EARLY:
                self._pipeline.carry_out(one.item, outcome, one.ticket)
                one.ticket.done()
            elif pause < LONGEST_SECONDS:
                self._waiting.append(one)
            else:
                log.info(
                    "%s: run %s: %s; it goes to the end", outcome.verdict, outcome.instance_id, outcome.reason
                )
                self._outbox.put_back(one.delivery, one.ticket.done)
        self._on_applied()
        if self._waiting and self._pause is None:
            self._arm(pause * 2)
