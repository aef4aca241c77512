"""Queues that are there and answer nobody: without a leader, or without a majority of their nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fuseline.amqp.consuming import Delivery
from fuseline.amqp.resources import Queue
from fuseline.amqp.sync import BackgroundLink
from fuseline.cli.doctor.checks import Check, Health
from fuseline.errors import BrokerUnavailableError, DeadlineExceededError, FuselineError

ASK_SECONDS = 5.0
_MOST = 3
_ACTION = (
    "rabbitmq-queues quorum_status {0}; nodes that are down: start them; all up and none its leader: "
    "rabbitmqctl delete_queue {0}, and fuseline topology apply"
)


def examine_queues(link: BackgroundLink, queues: Sequence[Queue]) -> Iterator[Check]:
    """One check for each of the first queues that do not answer. What this user may not read is passed over."""
    found = 0
    for queue in queues:
        if found < _MOST and not _answers(link, queue.name):
            found += 1
            told = f"{queue} is there and does not answer"
            yield Check("queues", Health.PROBLEM, told, _ACTION.format(queue.name))


def _answers(link: BackgroundLink, queue: str) -> bool:
    """A quorum queue without a leader counts 0 messages, as an empty one does; only the empty one says so when asked."""
    try:
        count = link.count(queue, deadline_seconds=ASK_SECONDS)
        if count is None or count.messages:
            return True
        got = link.get(queue, deadline_seconds=ASK_SECONDS)
    except (DeadlineExceededError, BrokerUnavailableError):
        return False
    except FuselineError:
        return True
    if isinstance(got, Delivery):  # it has just come
        link.nack(got, requeue=True)
    return True
