"""A RabbitMQ that is set up from `deploy/rabbitmq` alone serves Fuseline, with its accounts and no others."""

from __future__ import annotations

import re
import runpy
import secrets
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, ProbableAuthenticationError

from fuseline.amqp.definitions import Role
from fuseline.amqp.resources import Finding
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import Topology
from fuseline.testing.servers import PrivateRabbitMQ
from fuseline.testing.servers.base import LOOPBACK

pytestmark = pytest.mark.matrix

SHIPPED = Path(__file__).parents[3] / "deploy" / "rabbitmq"
INSTALLED_AT = "/etc/rabbitmq/fuseline-definitions.json"


class DeployedRabbitMQ(PrivateRabbitMQ):
    """A node with the shipped files at their places."""

    def _prepare(self) -> None:
        super()._prepare()
        outside = self.installation.outside(self.folder)
        shipped = (SHIPPED / "rabbitmq.conf").read_text()
        assert INSTALLED_AT in shipped
        (outside / "definitions.json").write_text(self.definitions())
        (outside / "conf.d" / "20-fuseline.conf").write_text(
            shipped.replace(INSTALLED_AT, f"{self.folder}/definitions.json")
        )
        self.give(outside)

    def definitions(self) -> str:
        """The text of the definitions file."""
        return (SHIPPED / "definitions.json").read_text()

    def url_of(self, user: str, password: str) -> str:
        return f"amqp://{user}:{password}@{LOOPBACK}:{self.port}/%2F"

    def setting(self, name: str) -> str:
        """What the running node has for a setting of the application `rabbit`."""
        said = self.rabbitmqctl("eval", f"application:get_env(rabbit, {name}).")
        return " ".join(said.split())


@pytest.fixture(scope="module")
def server(_killable_rabbitmq: PrivateRabbitMQ) -> Iterator[DeployedRabbitMQ]:
    with DeployedRabbitMQ(_killable_rabbitmq.installation) as running:
        yield running


@pytest.fixture
def passwords(server: DeployedRabbitMQ) -> dict[Role, str]:
    """As the page on operations says: one for each account."""
    made = {role: secrets.token_hex(12) for role in Role}
    for role, password in made.items():
        server.rabbitmqctl("change_password", f"fuseline-{role}", password)
    return made


def test_the_files_that_are_shipped_are_in_force(server: DeployedRabbitMQ) -> None:
    assert server.setting("heartbeat") == "{ok,30}"
    assert server.setting("consumer_timeout") == "{ok,1800000}"
    assert server.setting("cluster_partition_handling") == "{ok,pause_minority}"
    assert "2000000000" in server.setting("disk_free_limit") or "2GB" in server.setting("disk_free_limit")


def test_it_has_our_accounts_and_no_guest(server: DeployedRabbitMQ) -> None:
    users = set(re.findall(r"^(\S+)\t\[", server.rabbitmqctl("list_users"), re.MULTILINE))
    assert users == {f"fuseline-{role}" for role in Role}


def test_nobody_can_log_in_before_passwords_are_set(server: DeployedRabbitMQ) -> None:
    for password in ("", "guest", "fuseline"):
        with pytest.raises(ProbableAuthenticationError):
            pika.BlockingConnection(pika.URLParameters(server.url_of("fuseline-observer", password)))


def test_the_topology_is_there_and_is_the_one_that_coordinators_declare(
    server: DeployedRabbitMQ, passwords: dict[Role, str]
) -> None:
    """With other arguments a declaration would be refused (406), and no coordinator could start."""
    topology = Topology()
    url = server.url_of("fuseline-deployer", passwords[Role.DEPLOYER])
    with BackgroundLink(url, name="test") as link:
        verdicts = link.verify(topology.base_resources(), deadline_seconds=30)
        assert {verdict.finding for verdict in verdicts} <= {Finding.OK, Finding.UNKNOWN}
        assert {v.finding for v in verdicts if "binding" not in str(v.resource)} == {Finding.OK}
        link.declare(topology.base_resources(), deadline_seconds=30)


def test_a_worker_cannot_declare_or_command(server: DeployedRabbitMQ, passwords: dict[Role, str]) -> None:
    url = server.url_of("fuseline-worker", passwords[Role.WORKER])
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
            connection.channel().queue_declare("fuseline.steps.mine.1", durable=True)
        channel = connection.channel()
        channel.confirm_delivery()
        with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
            channel.basic_publish("fuseline.commands", "", b"{}")
    finally:
        connection.close()


def test_passwords_stay_over_a_restart(server: DeployedRabbitMQ, passwords: dict[Role, str]) -> None:
    """An import at every start, the server's default, would take them away."""
    server.restart()
    url = server.url_of("fuseline-dispatcher", passwords[Role.DISPATCHER])
    pika.BlockingConnection(pika.URLParameters(url)).close()


def test_the_passwords_made_for_compose_are_in_force(server: DeployedRabbitMQ, tmp_path: Path) -> None:
    script = SHIPPED.parent / "docker" / "prepare.py"
    prepare = runpy.run_path(str(script))
    prepare["prepare"](tmp_path)

    class Composed(DeployedRabbitMQ):
        def definitions(self) -> str:
            return (tmp_path / "definitions.json").read_text()

    environment = prepare["read_environment"](tmp_path / ".env")
    with Composed(server.installation) as node:
        for role in Role:
            password = environment[f"RABBITMQ_{role.upper()}_PASSWORD"]
            pika.BlockingConnection(pika.URLParameters(node.url_of(f"fuseline-{role}", password))).close()
