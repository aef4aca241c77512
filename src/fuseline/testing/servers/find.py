"""The first server that can be had: an address in the environment, a private one, a container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuseline.testing.servers.base import ServerUnavailable
from fuseline.testing.servers.cluster import PrivateRabbitMQCluster
from fuseline.testing.servers.containers import postgres_container, rabbitmq_container
from fuseline.testing.servers.installation import Installation
from fuseline.testing.servers.postgres import PrivatePostgres, find_postgres_installation
from fuseline.testing.servers.rabbitmq import PrivateRabbitMQ, find_rabbitmq_installation

AMQP_URL_VARIABLE = "FUSELINE_TEST_AMQP_URL"
POSTGRES_URL_VARIABLE = "FUSELINE_TEST_POSTGRES_URL"
RABBITMQ_ROOT_VARIABLE = "FUSELINE_TEST_RABBITMQ_ROOT"
"""A folder with a whole file system in which another RabbitMQ is installed (see scripts/test-matrix)."""


@contextmanager
def find_rabbitmq() -> Iterator[str]:
    """The AMQP URL of a RabbitMQ to test with, for as long as the context is open.

    In this order: the address in FUSELINE_TEST_AMQP_URL, which may be somebody's (use names of your own there, and
    leave nothing behind); a private node from the installed programs; a container where Docker answers. Raises
    `ServerUnavailable` with what to do when there is none of them.
    """
    if url := os.environ.get(AMQP_URL_VARIABLE):
        yield url
    elif rabbitmq_can_be_private():
        with private_rabbitmq() as server:
            yield server.url
    else:
        with rabbitmq_container() as url:
            if url is None:
                raise ServerUnavailable(_advice("RabbitMQ", "rabbitmq-server", AMQP_URL_VARIABLE))
            yield url


@contextmanager
def find_postgres(*, durable: bool = False) -> Iterator[str]:
    """The URL of a PostgreSQL database to test with; like `find_rabbitmq`, with FUSELINE_TEST_POSTGRES_URL.

    The user may create databases. `durable` (fsync) has a say in private servers only.
    """
    if url := os.environ.get(POSTGRES_URL_VARIABLE):
        yield url
    elif find_postgres_installation() is not None:
        with PrivatePostgres(durable=durable) as server:
            yield server.dsn
    else:
        with postgres_container() as url:
            if url is None:
                raise ServerUnavailable(_advice("PostgreSQL", "postgresql", POSTGRES_URL_VARIABLE))
            yield url


def rabbitmq_can_be_private() -> bool:
    """Whether the programs for a private node are there."""
    return find_rabbitmq_installation(_rabbitmq_root()) is not None


def private_rabbitmq() -> PrivateRabbitMQ:
    """A private node, not started, from FUSELINE_TEST_RABBITMQ_ROOT if set, else from the machine's programs."""
    return PrivateRabbitMQ(_installation())


def private_rabbitmq_cluster(nodes: int = 3) -> PrivateRabbitMQCluster:
    """A private cluster, not started, found as `private_rabbitmq` finds a node."""
    return PrivateRabbitMQCluster(nodes, _installation())


def _installation() -> Installation | None:
    root = _rabbitmq_root()
    found = find_rabbitmq_installation(root)
    if root is not None and found is None:
        raise ServerUnavailable(f"there is no RabbitMQ in {RABBITMQ_ROOT_VARIABLE}={root}")
    return found


def _rabbitmq_root() -> Path | None:
    root = os.environ.get(RABBITMQ_ROOT_VARIABLE)
    return Path(root) if root else None


def _advice(name: str, package: str, variable: str) -> str:
    return (
        f"no {name} to use: set {variable} to an address, or install the package {package} "
        "(scripts/ensure-servers does, as root on Debian), or start Docker"
    )
