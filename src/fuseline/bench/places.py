"""The servers of a benchmark: private ones, RabbitMQ a fresh one for each round, or those at given addresses."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from urllib.parse import urlsplit

from fuseline.bench.failing import BenchRefusedError
from fuseline.bench.systems import Place
from fuseline.storage.sql import open_storage, upgrade
from fuseline.testing.servers import PrivatePostgres
from fuseline.testing.servers.find import private_rabbitmq

Places = Callable[[], AbstractContextManager[Place]]
"""Makes the servers of one round."""


@contextmanager
def places(amqp_url: str | None, database_url: str | None) -> Iterator[Places]:
    """For as long as the context is open. What is not given is private, with PostgreSQL as durable as it comes.

    A given database has to be empty of runs, since all runs are taken away again. Raises `BenchRefusedError`,
    `ServerUnavailable`, and what opening a database raises.
    """
    if database_url is not None:
        _check_database(database_url)
    with ExitStack() as stack:
        postgres = None if database_url is not None else stack.enter_context(PrivatePostgres(durable=True))

        @contextmanager
        def one_round() -> Iterator[Place]:
            pids: dict[str, int] = {}
            rabbitmqctl = None
            with ExitStack() as of_round:
                url = amqp_url
                if url is None:
                    rabbitmq = of_round.enter_context(private_rabbitmq())
                    url, pids["rabbitmq"] = rabbitmq.url, rabbitmq.pid
                    rabbitmqctl = rabbitmq.rabbitmqctl
                database = database_url
                if postgres is not None:
                    name = f"bench_{secrets.token_hex(4)}"
                    database, pids["postgresql"] = postgres.create_database(name), postgres.pid
                    of_round.callback(postgres.drop_database, name)
                assert database is not None
                upgrade(database)
                if database_url is not None:
                    of_round.callback(_empty, database_url)
                yield Place(url, database, pids, rabbitmqctl)

        yield one_round


def _check_database(url: str) -> None:
    if urlsplit(url).scheme.partition("+")[0] != "postgresql":
        raise BenchRefusedError(
            "--database-url: a postgresql:// address (SQLite is measured by fuseline-embedded)"
        )
    upgrade(url)
    storage = open_storage(url)
    try:
        if sum(storage.count_runs().values()):
            raise BenchRefusedError(
                "the database holds runs: give the benchmark one of its own, it takes all runs away again "
                "(after one that was broken off: drop and create it)"
            )
    finally:
        storage.close()


def _empty(url: str) -> None:
    """Take away what has ended. What has not (the benchmark was broken off) is for people: nobody knows whose it is."""
    storage = open_storage(url)
    try:
        while storage.purge_runs(float("inf"), 500):
            continue
    finally:
        storage.close()
