"""A command group that imports a command's module when that command is wanted, and not for `--help`.

SQLAlchemy, FastAPI and the rest cost half a second to import; nobody who asks for a list of commands should pay it. This is
the one place that imports by name. Each module holds a `typer.Typer` called `app`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, TypeAlias

import typer.main
from typer.core import TyperCommand, TyperGroup

from fuseline.cli.failing import failing
from fuseline.errors import FatalError

# What Typer calls a command or a context of its own has moved between its versions, and has no public name.
Command: TypeAlias = Any
Context: TypeAlias = Any

EXTRAS = {"fastapi": "web", "uvicorn": "web", "starlette": "web", "psycopg": "postgres"}
"""Packages that are no dependency, and the extra that brings each."""


class Lazy(NamedTuple):
    """Where a command is, and what the list of commands says about it."""

    module: str
    help: str


class _Placeholder(TyperCommand):
    """Stands in the list for a command that was not imported yet."""

    def __init__(self, name: str, lazy: Lazy) -> None:
        super().__init__(name, help=lazy.help)
        self.lazy = lazy

    def load(self) -> Command:
        try:
            module = importlib.import_module(self.lazy.module)
        except ModuleNotFoundError as error:
            extra = EXTRAS.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            raise FatalError(f"{error.name} is not installed: pip install 'fuseline[{extra}]'") from error
        command = typer.main.get_command(module.app)
        command.name = self.name
        return command


class LazyGroup(TyperGroup):
    """The root group; `table` has its commands."""

    table: ClassVar[Mapping[str, Lazy]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, lazy in self.table.items():
            self.commands.setdefault(name, _Placeholder(name, lazy))

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command, list[str]]:
        """Import what was found by its name."""
        name, command, rest = super().resolve_command(ctx, args)
        if isinstance(command, _Placeholder):
            with failing():
                command = command.load()
            self.commands[name or ""] = command
        return name, command, rest
