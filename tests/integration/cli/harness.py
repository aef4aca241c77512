"""`fuseline` as people run it: real servers, files of their own, and processes where it is one that matters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from fuseline.amqp.topology import Topology
from tests.integration.amqp.harness import delete_topology
from tests.integration.cli.inline import run_inline

TIMEOUT_SECONDS = 100.0

FLOWS = '''\
"""Workflows for the tests."""

import time

from fuseline import Depends, StepContext, Workflow, step


@step
def fetch(url: str, size: int = 1) -> str:
    return f"page at {url}"


@step
def measure(page: str = Depends(fetch)) -> int:
    return len(page)


ingest = Workflow(outputs=[measure], workflow_id="ingest", version="1", description="Fetch and measure")


@step
def fail(reason: str = "of no use") -> str:
    raise ValueError(reason)


@step
def after(text: str = Depends(fail)) -> str:
    return text


failing = Workflow(outputs=[after], workflow_id="failing", version="1")


@step
def wait(seconds: float, ctx: StepContext) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not ctx.cancelled:
        time.sleep(0.05)
    return "waited"


waiting = Workflow(outputs=[wait], workflow_id="waiting", version="1")

several = [ingest, failing]
'''


@dataclass
class Fuseline:
    """Runs commands in `folder` with `environment`; `background` ones are ended with it."""

    folder: Path
    environment: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __call__(
        self, *arguments: str, stdin: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end, in this process."""
        return run_inline(arguments, self.folder, self._environment(environment), stdin)

    def process(
        self, *arguments: str, stdin: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end, in a process of its own."""
        return subprocess.run(
            self._command(arguments),
            cwd=self.folder,
            env=self._environment(environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """What the command answers with `--json`; it has to succeed."""
        result = self(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def background(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command and leave it running."""
        name = f"{arguments[0]}-{len(self.started)}"
        with (self.folder / f"{name}.out").open("w") as out, (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                self._command(arguments),
                cwd=self.folder,
                env=self._environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                text=True,
            )
        self.started.append(process)
        return process

    def said(self, process: subprocess.Popen[str]) -> str:
        """What a background command has written to its stdout by now."""
        number = self.started.index(process)
        (file,) = self.folder.glob(f"*-{number}.out")
        return file.read_text()

    def log(self) -> str:
        """What the background commands said."""
        return "\n".join(one.read_text() for one in sorted(self.folder.glob("*.log")))

    def wait_for(self, what: Callable[[], bool]) -> None:
        """Until it holds, up to a deadline."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not what():
            for process in self.started:
                assert process.poll() in (None, 0), self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "fuseline", *arguments]

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        # Of the surroundings no setting must leak in.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FUSELINE_")}
        return {**kept, **self.environment, **more}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for process in reversed(self.started):
            end(process)


_END_SECONDS = 60.0  # a demonstration ends processes that finish their work first, on a machine that is busy


def end(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> int:
    """End it in order, or at any rate; its exit code."""
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


def remove_topology(url: str, prefix: str, versions: list[tuple[str, str]]) -> None:
    """Take away what a test declared on a server that it shares."""
    delete_topology(url, Topology(prefix), versions)
