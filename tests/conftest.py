"""Servers for every test that asks for one, and what happens where there is none."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql

from fuseline.testing.servers import (
    PrivatePostgres,
    PrivateRabbitMQ,
    PrivateRabbitMQCluster,
    ServerUnavailable,
    find_postgres,
    find_rabbitmq,
)
from fuseline.testing.servers.find import private_rabbitmq, private_rabbitmq_cluster

_AMQP_FIXTURES = {"amqp_url", "rabbitmq_server", "rabbitmq_cluster"}
_SHARED_AMQP, _SHARED_POSTGRES = "amqp_url", "postgres_server_url"
_SLOW_ON_A_BUSY_MACHINE = [HealthCheck.too_slow]

# A deadline in wall time fails on a busy machine for no fault of the code.
settings.register_profile("default", deadline=None, suppress_health_check=_SLOW_ON_A_BUSY_MACHINE)
settings.register_profile("ci", settings.get_profile("default"), print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

Server = TypeVar("Server")

_missing: dict[str, str] = {}
_shared: dict[str, str | None] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--share-servers`: with `-n`, all processes test with one RabbitMQ and one PostgreSQL."""
    parser.addoption(
        "--share-servers",
        action="store_true",
        help="with -n: one RabbitMQ and one PostgreSQL for all processes, started before any test",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the shared servers' addresses to a process of pytest-xdist; the first one has them started."""
    if not node.config.getoption("share_servers"):
        return
    if not _shared:
        stack = ExitStack()
        node.config.add_cleanup(stack.close)
        for name, find in ((_SHARED_AMQP, find_rabbitmq), (_SHARED_POSTGRES, find_postgres)):
            try:
                _shared[name] = stack.enter_context(find())
            except ServerUnavailable:
                _shared[name] = None  # the first test that wants one says so
    node.workerinput["servers"] = dict(_shared)


def _share(config: pytest.Config, name: str) -> str | None:
    servers: dict[str, str | None] = getattr(config, "workerinput", {}).get("servers", {})
    return servers.get(name)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name what fails when it fails: the whole run takes minutes."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nfailed: {report.nodeid} ({report.when})", file=sys.__stderr__, flush=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what talks to RabbitMQ, so that `make test-matrix` finds it; keep together what kills a server of its own."""
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        if _AMQP_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.matrix)
        if "rabbitmq_cluster" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("cluster"))
        elif "_killable_rabbitmq" in item.fixturenames:
            # Each process that runs such a test starts a node, which costs seconds: two processes at most.
            group = "faults" if item.path.name == "test_faults.py" else "killable"
            item.add_marker(pytest.mark.xdist_group(group))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly at the end which servers were missing, and what was simulated or injected (with which seeds)."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in getattr(report, "user_properties", ()):
                if name in ("simulation", "faults"):
                    terminalreporter.write_line(f"{name}: {value}")
    for name, reason in _missing.items():
        terminalreporter.write_sep("!", f"NOT TESTED: {name}", red=True, bold=True)
        terminalreporter.write_line(reason)


def _without(name: str, error: ServerUnavailable) -> NoReturn:
    """Skip where a person runs the tests on a bare machine; fail in CI, where a skip would pass for a success."""
    _missing[name] = str(error)
    if os.environ.get("CI"):
        pytest.fail(f"{error}", pytrace=False)
    pytest.skip(f"{name}: {error}")


def _open(stack: ExitStack, name: str, make: Callable[[], AbstractContextManager[Server]]) -> Server:
    try:
        return stack.enter_context(make())
    except ServerUnavailable as error:
        _without(name, error)


@pytest.fixture(scope="session")
def amqp_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A RabbitMQ that all tests of this process share; never restarted. Use `topology_prefix` for names of your own."""
    with ExitStack() as stack:
        yield _share(request.config, _SHARED_AMQP) or _open(stack, "RabbitMQ", find_rabbitmq)


@pytest.fixture
def topology_prefix() -> str:
    """A prefix for exchanges and queues that no other test has."""
    return f"fl_{secrets.token_hex(5)}"


@pytest.fixture(scope="session")
def _killable_rabbitmq() -> Iterator[PrivateRabbitMQ]:
    with ExitStack() as stack:
        yield _open(stack, "RabbitMQ to kill", private_rabbitmq)


@pytest.fixture
def rabbitmq_server(_killable_rabbitmq: PrivateRabbitMQ) -> Iterator[PrivateRabbitMQ]:
    """A private RabbitMQ that a test may kill, stop and restart; it runs again before the next test."""
    yield _killable_rabbitmq.start()
    _killable_rabbitmq.start()


@pytest.fixture(scope="session")
def _killable_cluster() -> Iterator[PrivateRabbitMQCluster]:
    with ExitStack() as stack:
        yield _open(stack, "RabbitMQ cluster", private_rabbitmq_cluster)


@pytest.fixture
def rabbitmq_cluster(_killable_cluster: PrivateRabbitMQCluster) -> Iterator[PrivateRabbitMQCluster]:
    """A private cluster of three that a test may damage; it is whole again before the next test."""
    yield _killable_cluster.start()
    _killable_cluster.heal()
    _killable_cluster.start()


@pytest.fixture(scope="session")
def _postgres_server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with ExitStack() as stack:
        yield _share(request.config, _SHARED_POSTGRES) or _open(stack, "PostgreSQL", find_postgres)


@pytest.fixture(scope="session")
def postgres_url(_postgres_server_url: str) -> Iterator[str]:
    """An empty PostgreSQL database that all tests of this process share."""
    with _database(_postgres_server_url) as url:
        yield url


@pytest.fixture(scope="module")
def postgres_url_of_file(_postgres_server_url: str) -> Iterator[str]:
    """An empty PostgreSQL database for the tests of one file: who serves all runs of a database must not find another's."""
    with _database(_postgres_server_url) as url:
        yield url


@pytest.fixture
def fresh_postgres_url(_postgres_server_url: str) -> Iterator[str]:
    """An empty PostgreSQL database for one test."""
    with _database(_postgres_server_url) as url:
        yield url


@pytest.fixture(scope="session")
def _killable_postgres() -> Iterator[PrivatePostgres]:
    with ExitStack() as stack:
        yield _open(stack, "PostgreSQL to kill", PrivatePostgres)


@pytest.fixture
def postgres_server(_killable_postgres: PrivatePostgres) -> Iterator[PrivatePostgres]:
    """A private PostgreSQL, durable, that a test may kill, stop and restart; it runs again before the next test."""
    yield _killable_postgres.start()
    _killable_postgres.start()


@contextmanager
def _database(server_url: str) -> Iterator[str]:
    """An empty database that is there for as long as the context is open."""
    name = f"fuseline_{secrets.token_hex(6)}"
    identifier = sql.Identifier(name)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(identifier))
    yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(identifier))
