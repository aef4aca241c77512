"""Executes one page as a reader would: its snippets in order, in one folder. Run as a program of its own, because what
a page starts (loops, signal handlers, threads) must not meet the tests.

    python -m tests.docs.runner PAGE '{"text to replace": "by this"}'
"""

from __future__ import annotations

import importlib
import json
import linecache
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import types
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import yaml

from tests.docs.pages import DATA, SHELLS, Command, PageError, Snippet, commands_in, read_page

_PARSERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "toml": tomllib.loads,
}
_COMMAND_SECONDS = 180
_UP_SECONDS = 30
_DOWN_SECONDS = 30


def run_page(page: Path, replacements: dict[str, str]) -> None:
    """Execute the page in the current folder; raise what a snippet raises, with the page's own lines in the trace."""
    # A module of its own, so that dataclasses, pydantic and typing find the names that annotations mention.
    module = types.ModuleType("page")
    module.__file__ = str(page)
    sys.modules["page"] = module
    sys.path.insert(0, "")
    # This program needed it to be found; the reader's commands do not have it.
    os.environ.pop("PYTHONPATH", None)
    snippets = read_page(page)
    _show_to_inspect(page, snippets)
    with ExitStack() as stack:
        for snippet in snippets:
            text = snippet.text
            for pattern, replacement in replacements.items():
                text = re.sub(pattern, replacement, text)
            if snippet.title is not None:
                Path(snippet.title).parent.mkdir(parents=True, exist_ok=True)
                Path(snippet.title).write_text(text)
            if snippet.language == "python":
                _run_python(snippet, text, module)
            elif snippet.language in SHELLS:
                _run_shell(Snippet(page, snippet.line, snippet.language, text, what=snippet.what), stack)
            elif snippet.language in DATA:
                _parse(snippet, text)


def _show_to_inspect(page: Path, snippets: list[Snippet]) -> None:
    """Let traces and `inspect.getsource` see the page's Python at its place, and nothing of the prose around it."""
    lines = [""] * len(page.read_text().splitlines())
    for snippet in snippets:
        if snippet.language == "python" and snippet.executed:
            text = snippet.text.splitlines()
            lines[snippet.line - 1 : snippet.line - 1 + len(text)] = text
    # Without a time of change, the entry is never compared with the file and thrown away.
    linecache.cache[str(page)] = (len(lines), None, [f"{line}\n" for line in lines], str(page))


def _run_python(snippet: Snippet, text: str, module: types.ModuleType) -> None:
    if snippet.executed and snippet.title is not None:
        # A file is imported like any other module, so that its functions can be found by name in other processes.
        name = snippet.title.removesuffix(".py").replace("/", ".")
        importlib.invalidate_caches()
        imported = importlib.import_module(name)
        vars(module).update({key: value for key, value in vars(imported).items() if not key.startswith("__")})
        return
    # Empty lines in front make line numbers those of the page, for traces and for inspect.getsource.
    padded = "\n" * (snippet.line - 1) + text
    code = compile(padded, str(snippet.page), "exec")
    if snippet.executed:
        exec(code, vars(module))


def _run_shell(snippet: Snippet, stack: ExitStack) -> None:
    for command in commands_in(snippet):
        where = f"{snippet.page}:{command.line}"
        if snippet.what == "run":
            done = subprocess.run(
                ["bash", "-ec", command.text],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_COMMAND_SECONDS,
                check=False,
            )
            if done.returncode:
                raise PageError(f"{where}: {command.text}\nended with {done.returncode}:\n{done.stdout}")
            _compare(where, command, done.stdout)
        elif snippet.what == "background":
            _Background(where, command, stack).wait_until_up()


def _compare(where: str, command: Command, said: str) -> None:
    """Each line that the page shows must come, in this order; `...` in it stands for anything."""
    lines = iter(said.splitlines())
    for shown in command.output:
        if shown.strip() == "...":
            continue
        wanted = re.compile(".*".join(re.escape(part) for part in shown.strip().split("...")))
        if not any(wanted.search(line) for line in lines):
            raise PageError(f"{where}: {command.text}\ndid not print {shown!r} there, but:\n{said}")


class _Background:
    """A command that goes on until the page's end. It is taken to be up when it has printed a line."""

    def __init__(self, where: str, command: Command, stack: ExitStack) -> None:
        self._where = where
        self._command = command
        self._output = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "output"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                ["bash", "-ec", f"exec {command.text}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        stack.callback(self._stop)

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + _UP_SECONDS
        while not self._said():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise self._error("printed nothing to say that it is up")
            time.sleep(0.05)

    def _stop(self) -> None:
        early = self._process.poll() is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_DOWN_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise self._error(f"did not end within {_DOWN_SECONDS} s of SIGTERM") from None
        if self._process.returncode not in (0, -signal.SIGTERM):
            raise self._error("ended early" if early else "did not end well")

    def _said(self) -> str:
        return self._output.read_text(errors="replace")

    def _error(self, what: str) -> PageError:
        return PageError(
            f"{self._where}: {self._command.text}\n{what} (exit code {self._process.poll()}):\n{self._said()}"
        )


def _parse(snippet: Snippet, text: str) -> None:
    try:
        _PARSERS[snippet.language](text)
    except ValueError as error:
        raise PageError(f"{snippet.place}: not {snippet.language}: {error}") from error
    except yaml.YAMLError as error:
        raise PageError(f"{snippet.place}: not yaml: {error}") from error


if __name__ == "__main__":
    run_page(Path(sys.argv[1]), json.loads(sys.argv[2]))
