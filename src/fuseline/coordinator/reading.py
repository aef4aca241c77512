"""What is in deliveries: read when they are taken up, or before that, while there is nothing else to do but to wait."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fuseline.amqp.consuming import Delivery
from fuseline.coordinator.bundles import reports_in
from fuseline.coordinator.intake import Intake
from fuseline.errors import InvalidMessageError
from fuseline.ledger import Occurrence

log = logging.getLogger(__name__)


def _nothing(_delivery: Delivery, _reason: InvalidMessageError) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Source:
    """A queue and how its messages are read; `salvage`: what can still be made of one that is parked."""

    intake: Intake
    decode: Callable[[Delivery], Occurrence]
    salvage: Callable[[Delivery, InvalidMessageError], Occurrence | None] = _nothing


Taken: TypeAlias = "tuple[Source, list[Delivery]]"
Part: TypeAlias = "tuple[Delivery, Occurrence | None, str | None]"
"""A message, what to apply, and why it is to be parked, if it is."""


class Reading:
    """Reads deliveries, each once for every time that it is taken up."""

    def __init__(self) -> None:
        self._ahead: dict[Delivery, list[Part]] = {}

    def read(self, taken: Sequence[Taken]) -> Iterator[tuple[int, Part]]:
        """All that is in the deliveries of these sources, each with the index of its source."""
        # What is not among them is of a channel that was lost, or comes again when this has failed, and is read again.
        ahead, self._ahead = self._ahead, {}
        for index, (source, deliveries) in enumerate(taken):
            for delivery in deliveries:
                for part in ahead.pop(delivery, None) or _parts(source, delivery):
                    yield index, part

    def ahead_of(self, taken: Sequence[Taken], limit: int) -> Callable[[], bool]:
        """Reads one delivery at each call, of those that will be taken up after these; False when there are no more.

        What cannot even be parked is no concern of the commit that is awaited: it is met again when its turn comes.
        """
        each = self._read_ahead(taken, limit)

        def read_one() -> bool:
            try:
                return next(each, False)
            except Exception:
                log.exception("a message is left until its turn comes")
                return False

        return read_one

    def _read_ahead(self, taken: Sequence[Taken], limit: int) -> Iterator[bool]:
        for source, deliveries in taken:
            for delivery in source.intake.peek_behind(deliveries, limit):
                self._ahead[delivery] = list(_parts(source, delivery))
                yield True


def _parts(source: Source, delivery: Delivery) -> Iterator[Part]:
    for one in reports_in(delivery):
        try:
            yield one, source.decode(one), None
        except InvalidMessageError as error:
            yield one, source.salvage(one, error), str(error)
