"""The private servers themselves: P4 is tested with them, so that a kill must be a crash and a disk must be a disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pika
import psycopg
import pytest
from pika.exceptions import AMQPConnectionError

from fuseline.testing.servers import (
    AMQP_URL_VARIABLE,
    POSTGRES_URL_VARIABLE,
    Installation,
    PrivatePostgres,
    PrivateRabbitMQ,
    ServerUnavailable,
    find_postgres,
    find_rabbitmq,
    rabbitmq,
)
from fuseline.testing.servers.base import free_ports
from fuseline.testing.servers.containers import docker_answers, postgres_container, rabbitmq_container

pytestmark = pytest.mark.slow

QUEUE = "fl_servers_test"


def publish(url: str, body: bytes) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        channel.basic_publish("", QUEUE, body, pika.BasicProperties(delivery_mode=2), mandatory=True)


def take(url: str) -> bytes | None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        body: bytes | None = channel.basic_get(QUEUE, auto_ack=True)[2]
        channel.queue_delete(QUEUE)
        return body


def wait_until(true: Callable[[], bool], timeout_seconds: float = 20) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    # Whoever adopted it may be slow to collect a dead process.
    return state == "Z"


def test_a_rabbitmq_that_was_stopped_comes_back_with_its_address_and_its_messages(
    rabbitmq_server: PrivateRabbitMQ,
) -> None:
    before = rabbitmq_server.url
    publish(before, b"kept")
    rabbitmq_server.restart()
    assert rabbitmq_server.url == before
    assert take(before) == b"kept"


def test_a_port_that_was_taken_since_it_was_found_free_is_given_up_for_another(
    rabbitmq_server: PrivateRabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tests start servers at the same time, and one would fail for no reason of its own."""
    found = [[rabbitmq_server.port, *free_ports(1)]]
    monkeypatch.setattr(rabbitmq, "free_ports", lambda count: found.pop() if found else free_ports(count))
    with PrivateRabbitMQ() as another:
        assert another.port != rabbitmq_server.port
        publish(another.url, b"here")
        assert take(another.url) == b"here"


@pytest.mark.fault
def test_a_killed_rabbitmq_is_gone_at_once_and_comes_back_with_what_it_had_confirmed(
    rabbitmq_server: PrivateRabbitMQ,
) -> None:
    publish(rabbitmq_server.url, b"kept")
    # A quorum queue younger than a few seconds may come back empty from a crash (RabbitMQ issue 15725); this one was
    # restarted in order, which writes down who belongs to it.
    rabbitmq_server.restart()
    pid = rabbitmq_server.pid
    rabbitmq_server.kill()
    assert not rabbitmq_server.running
    assert is_gone(pid)
    with pytest.raises(AMQPConnectionError):
        pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url))
    rabbitmq_server.start()
    assert take(rabbitmq_server.url) == b"kept"


def test_two_private_rabbitmqs_know_nothing_of_each_other(rabbitmq_server: PrivateRabbitMQ) -> None:
    with PrivateRabbitMQ(rabbitmq_server.installation) as other:
        assert other.url != rabbitmq_server.url
        other_host = other.add_virtual_host("apart")
        publish(other_host, b"here")
        assert take(other_host) == b"here"
        assert "apart" not in rabbitmq_server.rabbitmqctl("list_vhosts")
        assert other.version() >= (3, 10)
        folder = other.installation.outside(other.folder)
        pids = (folder / "guarded").read_text().split()
    assert not folder.exists()
    assert all(is_gone(int(pid)) for pid in pids), "the node or its epmd outlived the test"


@pytest.mark.fault
def test_a_killed_postgres_comes_back_with_what_was_committed(postgres_server: PrivatePostgres) -> None:
    url = postgres_server.create_database("kept")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE one (value text)")
        connection.execute("INSERT INTO one VALUES ('kept')")
    idle = psycopg.connect(url)
    postgres_server.kill()
    with pytest.raises(psycopg.OperationalError):
        idle.execute("SELECT 1")
    idle.close()
    postgres_server.start()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT value FROM one").fetchall() == [("kept",)]
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
    postgres_server.drop_database("kept")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


def test_a_postgres_that_need_not_be_durable_is_not() -> None:
    if os.environ.get(POSTGRES_URL_VARIABLE):
        pytest.skip("the server in the environment has its own settings")
    with find_postgres(durable=False) as url, psycopg.connect(url) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("off",)


def test_a_database_name_is_checked_before_it_reaches_a_command(postgres_server: PrivatePostgres) -> None:
    with pytest.raises(ValueError, match="not a database name: '--template'"):
        postgres_server.create_database("--template")


@pytest.mark.fault
def test_servers_do_not_outlive_a_killed_owner(postgres_server: PrivatePostgres) -> None:
    script = (
        "from fuseline.testing.servers import PrivatePostgres\n"
        "server = PrivatePostgres(durable=False).start()\n"
        "print(server.pid, server.folder, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        assert not is_gone(int(pid))
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: is_gone(int(pid)) and not Path(folder).exists())


def test_a_server_that_cannot_start_says_so_with_its_log(tmp_path: Path) -> None:
    broken = tmp_path / "rabbitmq-server"
    broken.write_text("#!/bin/sh\necho the disk is made of cheese\nexit 3\n")
    broken.chmod(0o755)
    (tmp_path / "epmd").symlink_to("/bin/true")
    server = PrivateRabbitMQ(Installation(tmp_path, user="nobody-of-this-name"), timeout_seconds=20)
    with pytest.raises(ServerUnavailable, match=r"(?s)RabbitMQ ended with 3.*the disk is made of cheese"):
        server.start()
    assert not server.running


def test_an_address_in_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AMQP_URL_VARIABLE, "amqp://elsewhere/")
    monkeypatch.setenv(POSTGRES_URL_VARIABLE, "postgresql://elsewhere/db")
    with find_rabbitmq() as amqp, find_postgres() as postgres:
        assert amqp == "amqp://elsewhere/"
        assert postgres == "postgresql://elsewhere/db"


def test_containers_serve_where_docker_answers() -> None:
    if not docker_answers():
        pytest.skip("no Docker here")
    with rabbitmq_container() as amqp, postgres_container() as postgres:
        assert amqp is not None
        assert postgres is not None
        publish(amqp, b"kept")
        assert take(amqp) == b"kept"
        psycopg.connect(postgres).close()


def test_without_any_server_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (AMQP_URL_VARIABLE, POSTGRES_URL_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for module in ("rabbitmq", "postgres"):
        monkeypatch.setattr(f"fuseline.testing.servers.{module}._PLACES", ())
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("FUSELINE_TEST_RABBITMQ_ROOT", raising=False)
    with (
        pytest.raises(ServerUnavailable, match=r"set FUSELINE_TEST_AMQP_URL .* install .*rabbitmq-server"),
        find_rabbitmq(),
    ):
        pass
    with (
        pytest.raises(ServerUnavailable, match=r"set FUSELINE_TEST_POSTGRES_URL .* install .*postgresql"),
        find_postgres(),
    ):
        pass
