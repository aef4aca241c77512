"""AmqpBroker, over RabbitMQ with a coordinator on PostgreSQL, keeps the contract of every broker; so does HTTP over it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing

import pytest

from fuseline.amqp.topology import Topology
from fuseline.broker import AmqpBroker, Broker, HttpBroker
from fuseline.storage import PostgresRuntimeStorage
from fuseline.testing.broker_contract import BrokerContract
from fuseline.web.background import serving
from tests.integration.coordinator.harness import coordinating


@pytest.fixture(scope="module")
def topology(amqp_url: str, postgres_url: str) -> Iterator[Topology]:
    """Names of this module's own, with a coordinator that serves them."""
    topology = Topology(f"fl_{secrets.token_hex(5)}")
    with (
        closing(PostgresRuntimeStorage(postgres_url, upgrade=True)) as storage,
        coordinating(amqp_url, topology, storage),
    ):
        yield topology


class TestAmqpBroker(BrokerContract):
    @pytest.fixture
    def broker(self, amqp_url: str, topology: Topology) -> Iterator[Broker]:
        with AmqpBroker(amqp_url, topology=topology) as broker:
            yield broker


class TestHttpBrokerOverAmqp(BrokerContract):
    @pytest.fixture
    def broker(self, amqp_url: str, topology: Topology) -> Iterator[Broker]:
        with (
            AmqpBroker(amqp_url, topology=topology) as behind,
            serving(behind) as url,
            HttpBroker(url) as broker,
        ):
            yield broker
