"""Queues that a benchmark declares and takes away again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

from fuseline.amqp.resources import Exchange, Queue
from fuseline.amqp.topology import Topology
from fuseline.errors import BrokerUnavailableError


@contextmanager
def _channel(url: str) -> Iterator[BlockingChannel]:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(url))
    except AMQPError as error:
        raise BrokerUnavailableError(f"RabbitMQ cannot be reached: {error!r}") from error
    try:
        yield connection.channel()
    finally:
        connection.close()


def declare(url: str, queues: Sequence[str]) -> None:
    """Quorum queues. Raises `BrokerUnavailableError`."""
    with _channel(url) as channel:
        for queue in queues:
            channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})


def delete(url: str, queues: Sequence[str], exchanges: Sequence[str] = ()) -> None:
    """Take them away, those that are there."""
    with _channel(url) as channel:
        for queue in queues:
            channel.queue_delete(queue)
        for exchange in exchanges:
            channel.exchange_delete(exchange)


def delete_topology(url: str, topology: Topology, versions: Iterable[tuple[str, str]]) -> None:
    """Take away all that an installation declares for these workflow versions."""
    resources = topology.base_resources()
    for key in versions:
        resources += topology.workflow_resources(*key)
    delete(
        url,
        [one.name for one in resources if isinstance(one, Queue)],
        [one.name for one in resources if isinstance(one, Exchange)],
    )
