"""All that is under fire, started: RabbitMQ, PostgreSQL, coordinators, workers, a stream of runs."""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fuseline.amqp.topology import Topology
from fuseline.broker import AmqpBroker
from fuseline.errors import RetryableError
from fuseline.storage.sql import upgrade
from fuseline.testing.proxy import TcpProxy
from fuseline.testing.servers import PrivatePostgres, PrivateRabbitMQ, PrivateRabbitMQCluster
from tests.fault import audit
from tests.fault.history import History
from tests.fault.options import SETTINGS, Options
from tests.fault.processes import LogBook, Party, Supervisor
from tests.fault.taps import Taps
from tests.fault.workload.bodies import make_workflow
from tests.fault.workload.dispatching import Dispatcher
from tests.fault.workload.graphs import draw_workflows

READY_SECONDS: Final = 120.0
BODIES: Final = "tests.fault.workload.bodies:workflows"
ROOT: Final = Path(__file__).resolve().parents[2]
_WORKERS: Final = (
    ("thread", "plain", "8"),
    ("async", "async", "30"),
    ("process", "plain", "2"),
)


class World:
    """One installation. Entering it returns when all parties are ready; leaving it ends and removes everything."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.folder = options.folder
        self.logs_folder = self.folder / "logs"
        self.executions_folder = self.folder / "executions"
        for folder in (self.logs_folder, self.executions_folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.history = History(self.folder / "history.jsonl")
        self.topology = Topology("fault")
        self.schemas = [make_workflow(one).to_schema() for one in draw_workflows(options.seed)]
        self.logs = LogBook(self.logs_folder)
        self.complaints: list[str] = []
        self._stack = ExitStack()
        self._may_die = threading.Timer(0.0, lambda: None)

    # ---- life

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.history.close)
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._may_die.cancel()
        self._stack.__exit__(kind, error, trace)

    def _start(self, stack: ExitStack) -> None:
        self.cluster = PrivateRabbitMQCluster() if self.options.topology == "cluster" else None
        self.nodes = [PrivateRabbitMQ()] if self.cluster is None else self.cluster.nodes
        self.postgres = PrivatePostgres()
        servers = [self.cluster or self.nodes[0], self.postgres]
        with ThreadPoolExecutor(2) as pool:
            for server in servers:
                stack.callback(server.close)
            list(pool.map(lambda server: server.start(), servers))
        self.database_url = self.postgres.create_database("fault")
        upgrade(self.database_url)
        if self.options.is_watched:
            audit.install(self.database_url)
        self.progress = audit.Progress(self.database_url)
        stack.callback(self.progress.close)
        self.lines: dict[str, list[TcpProxy]] = {}
        stack.callback(self._close_lines)
        self.taps = Taps([node.url for node in self.nodes], self.topology, self.schemas)
        self.broker = stack.enter_context(
            AmqpBroker(self._amqp_urls("dispatcher"), topology=self.topology, call_seconds=8.0)
        )
        self.parties = self._parties()
        self.supervisor = Supervisor(self.parties, self.history)
        stack.callback(self.supervisor.close)
        self.supervisor.start()
        self.wait_healthy(READY_SECONDS)
        if self.options.is_watched:
            self.taps.listen()
        self.dispatcher = Dispatcher(
            self.broker, self.schemas, self.history, self.options.seed, self.options.runs_per_second
        )
        stack.callback(self.dispatcher.stop)
        self.dispatcher.start()

    def _line(self, name: str, port: int) -> TcpProxy:
        """One more proxy of those that have this name; it goes wherever the world goes."""
        proxy = TcpProxy("127.0.0.1", port).start()
        self.lines.setdefault(name, []).append(proxy)
        return proxy

    def _close_lines(self) -> None:
        for proxies in self.lines.values():
            for proxy in proxies:
                proxy.close()

    def _amqp_urls(self, party: str) -> list[str]:
        """The nodes' addresses for one party, each through a proxy of its own."""
        return [self._line(f"{party} to RabbitMQ", node.port).url(node.url) for node in self.nodes]

    def _parties(self) -> list[Party]:
        shared = {
            **SETTINGS,
            "FUSELINE_PREFIX": self.topology.prefix,
            "FUSELINE_FUSION_HOPS": str(self.options.fusion_hops),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "PYTHONFAULTHANDLER": "1",
        }
        found = []
        for name in ("coordinator-1", "coordinator-2"):
            environment = {
                **shared,
                "FUSELINE_AMQP_URL": ",".join(self._amqp_urls(name)),
                "FUSELINE_DATABASE_URL": self._line(f"{name} to PostgreSQL", self.postgres.port).url(
                    self.database_url
                ),
            }
            found.append(Party(name, "coordinator", ["coordinator"], environment, self.logs_folder))
        for number, (executor, bodies, concurrency) in enumerate(_WORKERS, 1):
            environment = {
                **shared,
                "FUSELINE_AMQP_URL": ",".join(self._amqp_urls(f"worker-{number}")),
                "FAULT_SEED": str(self.options.seed),
                "FAULT_BODIES": bodies,
                "FAULT_LOGS": str(self.executions_folder.resolve()),
            }
            arguments = ["worker", BODIES, "--executor", executor, "--concurrency", concurrency]
            found.append(Party(f"worker-{number}", "worker", arguments, environment, self.logs_folder))
        return found

    # ---- how it is

    def node_name(self, node: PrivateRabbitMQ) -> str:
        """What a node is called in the history."""
        return f"rabbit-{self.nodes.index(node) + 1}"

    def complain(self, what: str) -> None:
        """Note something that must not be, and that no invariant looks for."""
        self.history.write("complaint", text=what)
        self.complaints.append(what)

    def count_runs(self) -> dict[str, int]:
        """How many runs there are of each status; for whoever shows it, on a thread of its own."""
        counting = audit.Progress(self.database_url)
        try:
            return counting.runs()
        finally:
            counting.close()

    def deaths(self) -> bool:
        """Whether a worker has ended by itself while it was allowed to."""
        text = self.history.path.read_text(encoding="utf-8")
        return '"what": "exited"' in text and '"expected": true' in text

    def supervisor_may_die_until(self, at: float) -> None:
        """Workers that end by themselves until then (monotonic) are no surprise."""
        self._may_die.cancel()

        def over() -> None:
            for party in self.parties:
                party.may_die = False

        self._may_die = threading.Timer(max(0.0, at - time.monotonic()), over)
        self._may_die.daemon = True
        self._may_die.start()

    def wait_healthy(self, seconds: float) -> float:
        """Until a coordinator answers and all workers are heard; how long it took. `TimeoutError` after `seconds`."""
        began = time.monotonic()
        while True:
            if self.is_healthy():
                return time.monotonic() - began
            if time.monotonic() - began > seconds:
                tails = [
                    f"{party.name}: {party.process.log_tail(3)}" for party in self.parties if party.process
                ]
                raise TimeoutError(f"not healthy within {seconds:g} s\n" + "\n".join(tails))
            time.sleep(0.3)

    def is_healthy(self) -> bool:
        """Whether a coordinator answers and each worker's present process is alive in its eyes."""
        try:
            alive = {worker.pid for worker in self.broker.list_workers() if worker.alive}
        except RetryableError:
            return False
        return all(party.pid in alive for party in self.parties if party.role == "worker" and party.process)


if sys.platform == "win32":
    raise RuntimeError("the harness sends POSIX signals")
