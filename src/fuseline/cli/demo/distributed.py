"""The demonstration with everything that an installation has: RabbitMQ, PostgreSQL, a coordinator, workers."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from fuseline.broker.amqp import AmqpBroker
from fuseline.cli.demo.embedded import TARGET
from fuseline.cli.demo.processes import OurProcess, OurProcesses
from fuseline.cli.demo.summary import Summary, summarize
from fuseline.cli.output import duration
from fuseline.cli.watch import watch_run
from fuseline.clock import Clock, SystemClock
from fuseline.errors import RetryableError
from fuseline.examples.stdlib_report import stdlib_report
from fuseline.model import RunView, Status
from fuseline.storage.sql import upgrade
from fuseline.testing.servers import find_postgres, find_rabbitmq

_READY_SECONDS: Final = 60.0
# A killed worker's leases are over soon, and what is executed is soon seen as such: a demonstration is short.
_TIMES: Final = {
    "FUSELINE_LEASE_SECONDS": "5",
    "FUSELINE_HEARTBEAT_SECONDS": "1",
    "FUSELINE_CLAIM_AFTER_SECONDS": "0.2",
}
_KILL_AFTER_STEPS: Final = 8
_FROZEN_SECONDS: Final = 0.7


@dataclass(slots=True)
class Chaos:
    """Kills one worker when some steps are done and it holds others; `names` of workers by worker id.

    What a view calls running may have been reported just then. So the victim is frozen first: what it still holds when
    all that it said has been heard, it can only lose.
    """

    workers: list[OurProcess]
    names: Mapping[str, str]
    console: Console
    clock: Clock = field(default_factory=SystemClock)
    killed: OurProcess | None = None
    held: list[str] = field(default_factory=list)
    _frozen: tuple[OurProcess, float] | None = None

    def look(self, run: RunView) -> None:
        """Called with every view of the run."""
        if self.killed is not None:
            return
        if self._frozen is None:
            self._choose(run)
            return
        victim, since = self._frozen
        if self.clock.monotonic() - since < _FROZEN_SECONDS and not run.state.is_terminal:
            return
        self._frozen = None
        self.held = self._held_by(victim, run)
        if not self.held:
            victim.thaw()
            return
        victim.kill()
        self.killed = victim
        self.console.print(f"SIGKILL {title(victim)}, which holds {', '.join(self.held)}", style="bold red")

    def _choose(self, run: RunView) -> None:
        done = sum(step.state is Status.SUCCEEDED for step in run.steps.values())
        holders = [worker for worker in self.workers if self._held_by(worker, run)]
        if done >= _KILL_AFTER_STEPS and holders:
            holders[0].freeze()
            self._frozen = holders[0], self.clock.monotonic()

    def _held_by(self, worker: OurProcess, run: RunView) -> list[str]:
        mine = title(worker)
        return [
            step.name
            for step in run.steps.values()
            if step.state is Status.RUNNING and self.names.get(step.worker_id or "") == mine
        ]


def title(process: OurProcess) -> str:
    """What a process is called in the picture."""
    return f"{process.name} (pid {process.pid})"


def run_distributed(
    folder: Path,
    inputs: dict[str, Any],
    console: Console,
    *,
    prefix: str,
    workers: int,
    chaos: bool,
    amqp_url: str | None,
    database_url: str | None,
) -> Summary:
    """Execute the workflow on servers of our own (or on the given ones), and compare the report with a local run's."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        amqp = amqp_url or _started(stack, console, "RabbitMQ", find_rabbitmq())
        database = database_url or _started(stack, console, "PostgreSQL", find_postgres(durable=True))
        upgrade(database)
        environment = {
            **_TIMES,
            "FUSELINE_AMQP_URL": amqp,
            "FUSELINE_DATABASE_URL": database,
            "FUSELINE_PREFIX": prefix,
        }
        broker = stack.enter_context(AmqpBroker(amqp, prefix=prefix))
        ours = stack.enter_context(OurProcesses())
        coordinator = _start(ours, console, "coordinator", ["coordinator"], environment, folder)
        coordinator.wait_for(lambda: _answers(broker), "becoming ready", _READY_SECONDS)
        # A worker needs RabbitMQ alone.
        del environment["FUSELINE_DATABASE_URL"]
        arguments = ["worker", TARGET, "--executor", "process", "--concurrency", "2"]
        started = [
            _start(ours, console, f"worker-{number}", arguments, environment, folder)
            for number in range(1, workers + 1)
        ]
        names: dict[str, str] = {}
        for process in started:
            process.wait_for(partial(_registered, broker, process, names), "registering", _READY_SECONDS)
        instance_id = stdlib_report.dispatch(broker, inputs)
        console.print(f"run         {instance_id}\n", style="dim")
        trouble = Chaos(started, names, console)
        run = watch_run(
            broker,
            instance_id,
            console,
            names=lambda: names,
            between=trouble.look if chaos else None,
        )
        killed = None if trouble.killed is None else title(trouble.killed)
    console.print("\nthe same once more, in this process and without any broker, to compare", style="dim")
    local = stdlib_report.run({**inputs, "folder": str(folder / "local")})
    return summarize(run, names, killed=killed, held_when_killed=trouble.held, compared_with=local.sha256)


def _started(
    stack: ExitStack, console: Console, name: str, server: contextlib.AbstractContextManager[str]
) -> str:
    began = time.monotonic()
    url = stack.enter_context(server)
    took = duration(time.monotonic() - began)
    console.print(f"{name:<11} {url} (there after {took})", style="dim")
    return url


def _start(
    ours: OurProcesses,
    console: Console,
    name: str,
    arguments: list[str],
    environment: Mapping[str, str],
    folder: Path,
) -> OurProcess:
    log_file = folder / "logs" / f"{name}.log"
    process = ours.start(name, arguments, environment, log_file)
    console.print(f"{name:<11} pid {process.pid}, log in {os.path.relpath(log_file)}", style="dim")
    return process


def _answers(broker: AmqpBroker) -> bool:
    try:
        broker.status()
    except RetryableError:
        return False
    return True


def _registered(broker: AmqpBroker, process: OurProcess, names: dict[str, str]) -> bool:
    for worker in broker.list_workers():
        if worker.pid == process.pid:
            names[worker.worker_id] = title(process)
            return True
    return False
