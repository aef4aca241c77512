"""A command's main in this process: what a process of its own would do, without the second and a half to start it."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from fuseline.cli.main import main


def run_inline(
    arguments: tuple[str, ...], folder: Path, environment: Mapping[str, str], stdin: str | None
) -> subprocess.CompletedProcess[str]:
    """Run the command with these surroundings, and put this process's own back."""
    out, err = io.StringIO(), io.StringIO()
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in os.environ.keys() - environment.keys():
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["fuseline", *arguments])
        patch.setattr(sys, "stdin", io.StringIO(stdin or ""))
        patch.syspath_prepend(folder)
        stack.enter_context(_modules_kept(folder))
        stack.enter_context(_logging_kept())
        stack.enter_context(_signals_kept())
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return subprocess.CompletedProcess(["fuseline", *arguments], code, out.getvalue(), err.getvalue())


@contextmanager
def _modules_kept(folder: Path) -> Iterator[None]:
    """The next test's `flows` is another module."""
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).is_relative_to(folder):
                del sys.modules[name]


@contextmanager
def _logging_kept() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {
        name: one.level
        for name, one in logging.root.manager.loggerDict.items()
        if isinstance(one, logging.Logger)
    }
    root.handlers = []  # the command takes away what it finds, and closes it
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)
        for name, one in logging.root.manager.loggerDict.items():
            if isinstance(one, logging.Logger):
                one.setLevel(levels.get(name, logging.NOTSET))


@contextmanager
def _signals_kept() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
