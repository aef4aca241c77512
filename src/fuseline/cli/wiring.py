"""The composition root: here, and nowhere else, settings become a storage and a broker."""

from __future__ import annotations

from urllib.parse import urlsplit

from fuseline import broker as brokers
from fuseline import storage as storages
from fuseline.amqp.connection import addresses
from fuseline.amqp.topology import Topology
from fuseline.broker.base import Broker
from fuseline.cli.failing import UsageError
from fuseline.engine import Rules
from fuseline.settings import Settings
from fuseline.storage.base import RuntimeStorage


def amqp_urls(settings: Settings) -> list[str]:
    """RabbitMQ's addresses, to be tried in turn."""
    if not settings.amqp_url.strip(" ,"):
        raise UsageError("FUSELINE_AMQP_URL (--amqp-url) is empty")
    return addresses(settings.amqp_url)


def topology_of(settings: Settings) -> Topology:
    """The names under the prefix."""
    return Topology(settings.prefix, settings.queue_type)


def rules_of(settings: Settings) -> Rules:
    """The numbers that decisions are made with."""
    return Rules(
        lease_seconds=settings.lease_seconds,
        sweep_seconds=settings.sweep_seconds,
        max_losses=settings.max_losses,
    )


def open_broker(settings: Settings, *, embedded: bool = False) -> Broker:
    """The broker that a command talks to; close it.

    `embedded`: a `MemoryBroker` over the database. Else the HTTP service if there is an address of one, else RabbitMQ.
    """
    if embedded:
        return brokers.MemoryBroker(
            open_database(settings),
            rules=rules_of(settings),
            max_message_bytes=settings.max_message_bytes,
            close_storage=True,
        )
    if settings.http_url:
        return brokers.HttpBroker(settings.http_url, call_seconds=settings.call_seconds)
    return brokers.AmqpBroker(
        amqp_urls(settings),
        topology=topology_of(settings),
        call_seconds=settings.call_seconds,
        claim_after_seconds=settings.claim_after_seconds,
        max_message_bytes=settings.max_message_bytes,
    )


def open_database(settings: Settings) -> RuntimeStorage:
    """The database. A SQLite file is made, and brought up to date, by whoever opens it.

    Raises `MigrationError` when a PostgreSQL has other tables than this version works with.
    """
    return storages.open_storage(settings.database_url)


def is_sqlite(url: str) -> bool:
    """Whether the database is a file of ours, for one process to look after."""
    return urlsplit(url).scheme.partition("+")[0] == "sqlite"
