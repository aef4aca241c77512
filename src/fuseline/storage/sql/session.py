"""One driver connection within one transaction: how statements are executed on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fuseline.storage.sql.statements import Statement

Row = Sequence[Any]


class Session(ABC):
    """Executes statements; the storage begins, commits and maps the driver's errors."""

    def __init__(self) -> None:
        self.executed = 0
        """How many statements, for those who count."""
        self.meanwhile: Callable[[], bool] | None = None
        """See `Transaction.meanwhile`."""

    def begin_commit(self) -> bool:
        """See `Transaction.begin_commit`."""
        return False

    @abstractmethod
    def all(self, statement: Statement, **parameters: Any) -> list[Row]:
        """The rows found. A parameter may be a list of texts."""

    @abstractmethod
    def of_keys(self, statement: Statement, keys: Iterable[tuple[str, str]]) -> list[Row]:
        """The rows found for pairs of texts."""

    def ask(self, statement: Statement, **parameters: Any) -> Callable[[], list[Row]]:
        """Execute it; what is returned gives the rows found. Several may be asked before the first answer is looked at:
        they are executed in this order, on a server one behind the other without waiting for each answer.
        """
        found = self.all(statement, **parameters)
        return lambda: found

    def ask_keys(self, statement: Statement, keys: Iterable[tuple[str, str]]) -> Callable[[], list[Row]]:
        """The same for pairs of texts."""
        found = self.of_keys(statement, keys)
        return lambda: found

    @abstractmethod
    def run(self, statement: Statement, **parameters: Any) -> int:
        """How many rows it changed."""

    @abstractmethod
    def write(self, statement: Statement, rows: Sequence[Row]) -> None:
        """Write rows, which hold the statement's `columns`. An error may be raised later, by the commit at the latest."""

    @abstractmethod
    def write_one(self, statement: Statement, row: Row) -> bool:
        """The same for one; whether it was written."""
