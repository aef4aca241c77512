"""Asking before something that cannot be undone."""

from __future__ import annotations

import sys

import typer

from fuseline.cli.failing import UsageError


def confirm(question: str) -> None:
    """Go on after a yes. Raises `UsageError` where nobody is there to be asked."""
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to be asked: --yes")
    typer.confirm(question, abort=True, err=True)
