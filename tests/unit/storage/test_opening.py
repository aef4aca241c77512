"""From a URL to a storage, and what `fuseline.storage` loads only when it is asked for."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fuseline.storage
from fuseline.errors import CallerError
from fuseline.storage import MemoryRuntimeStorage, SqliteRuntimeStorage
from fuseline.storage.sql import current, open_storage


def test_the_url_says_which_storage(tmp_path: Path) -> None:
    assert isinstance(open_storage("memory:"), MemoryRuntimeStorage)
    storage = open_storage(f"sqlite:///{tmp_path}/runs.db")
    assert isinstance(storage, SqliteRuntimeStorage)
    storage.close()


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", ""])
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(CallerError, match="sqlite"):
        current(url)


def test_postgresql_without_its_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def missing(name: str, *arguments: Any) -> Any:
        if name == "fuseline.storage.sql.postgres":
            raise ModuleNotFoundError(name="psycopg")
        return real(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(CallerError, match=r"fuseline\[postgres\]"):
        open_storage("postgresql://localhost/x")


def test_importing_the_package_loads_no_database() -> None:
    program = (
        "import sys, fuseline.storage as s; print('sqlalchemy' in sys.modules);"
        "s.SqliteRuntimeStorage; print('psycopg' in sys.modules, 'alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]


def test_every_name_is_there_and_no_other() -> None:
    assert all(getattr(fuseline.storage, name) is not None for name in fuseline.storage.__all__)
    with pytest.raises(AttributeError, match="NoSuchStorage"):
        _ = fuseline.storage.NoSuchStorage
