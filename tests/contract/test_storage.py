"""The storages keep the contract of every storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fuseline.storage import (
    MemoryRuntimeStorage,
    PostgresRuntimeStorage,
    RuntimeStorage,
    SqliteRuntimeStorage,
)
from fuseline.storage.sql.tables import metadata
from fuseline.testing.storage_contract import SharedStorageContract, StorageContract


class TestMemory(StorageContract):
    writes_json = False

    @pytest.fixture
    def storage(self) -> RuntimeStorage:
        return MemoryRuntimeStorage()


class TestSqlite(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[RuntimeStorage]:
        storage = SqliteRuntimeStorage(tmp_path / "runs.db")
        yield storage
        storage.close()


class TestSqliteWithoutAFile(StorageContract):
    @pytest.fixture
    def storage(self) -> Iterator[RuntimeStorage]:
        storage = SqliteRuntimeStorage(":memory:")
        yield storage
        storage.close()

    @pytest.mark.skip("there is one connection, so nothing else can look")
    def test_what_is_not_committed_is_not_read(self, storage: RuntimeStorage) -> None:
        """What a transaction has written is seen by nobody else."""


class TestPostgres(StorageContract, SharedStorageContract):
    @pytest.fixture
    def storage(self, postgres_url: str) -> Iterator[RuntimeStorage]:
        storage = PostgresRuntimeStorage(postgres_url, upgrade=True, pool_size=20)
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f"TRUNCATE {', '.join(metadata.tables)}")
        yield storage
        storage.close()
