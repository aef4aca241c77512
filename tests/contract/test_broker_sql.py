"""MemoryBroker over SQLite and over PostgreSQL keeps the contract of every broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fuseline.broker import Broker, MemoryBroker
from fuseline.clock import ManualClock
from fuseline.storage.base import RuntimeStorage
from fuseline.storage.sql import open_storage, upgrade
from fuseline.testing.broker_contract import BrokerContract, BrokerTimeContract


@pytest.fixture
def sqlite(tmp_path: Path) -> RuntimeStorage:
    return open_storage(f"sqlite:///{tmp_path}/fuseline.db")


@pytest.fixture
def postgres(postgres_url_of_file: str) -> RuntimeStorage:
    upgrade(postgres_url_of_file)
    return open_storage(postgres_url_of_file)


class TestMemoryBrokerOnSqlite(BrokerContract):
    @pytest.fixture
    def broker(self, sqlite: RuntimeStorage) -> Iterator[Broker]:
        with MemoryBroker(sqlite, close_storage=True) as broker:
            yield broker


class TestMemoryBrokerOnPostgres(BrokerContract):
    @pytest.fixture
    def broker(self, postgres: RuntimeStorage) -> Iterator[Broker]:
        with MemoryBroker(postgres, close_storage=True) as broker:
            yield broker


class _ByHand(BrokerTimeContract):
    __test__ = False

    @pytest.fixture(autouse=True)
    def _clock(self) -> None:
        self.clock = ManualClock()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


class TestMemoryBrokerOnSqliteTime(_ByHand):
    __test__ = True

    @pytest.fixture
    def broker(self, sqlite: RuntimeStorage) -> Iterator[Broker]:
        with MemoryBroker(sqlite, clock=self.clock, close_storage=True) as broker:
            yield broker


class TestMemoryBrokerOnPostgresTime(_ByHand):
    __test__ = True

    @pytest.fixture
    def broker(self, fresh_postgres_url: str) -> Iterator[Broker]:
        upgrade(fresh_postgres_url)
        storage = open_storage(fresh_postgres_url)
        with MemoryBroker(storage, clock=self.clock, close_storage=True) as broker:
            yield broker
