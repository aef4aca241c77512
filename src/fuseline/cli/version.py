"""`fuseline version`."""

from __future__ import annotations

import importlib.metadata
import platform

import typer

from fuseline.cli.options import Json, command
from fuseline.cli.output import print_json, print_pairs
from fuseline.settings import Settings

PACKAGES = ("fuseline", "pika", "aio-pika", "pydantic", "sqlalchemy", "psycopg", "fastapi")

app = typer.Typer(add_completion=False)


@app.command()
@command()
def version(settings: Settings, as_json: Json = False) -> None:
    """Show the versions of Fuseline, of Python, and of what matters beneath."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    if as_json:
        print_json(found)
    else:
        print_pairs(found)
