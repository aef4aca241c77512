"""One driver connection within one transaction: how statements are executed on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from fuseline.storage.sql.statements import Statement

Row = Sequence[Any]


class Session(ABC):
    """Executes statements; the storage begins, commits and maps the driver's errors."""

    def __init__(self) -> None:
        self.executed = 0
        """How many statements, for those who count."""

    @abstractmethod
    def all(self, statement: Statement, **parameters: Any) -> list[Row]:
        """The rows found. A parameter may be a list of texts."""

    @abstractmethod
    def of_keys(self, statement: Statement, keys: Iterable[tuple[str, str]]) -> list[Row]:
        """The rows found for pairs of texts."""

    @abstractmethod
    def run(self, statement: Statement, **parameters: Any) -> int:
        """How many rows it changed."""

    @abstractmethod
    def write(self, statement: Statement, rows: Sequence[Row]) -> int:
        """Write rows, which hold the statement's `columns`; how many were written."""
