"""A coordinator that the test plays, and a worker on a thread: what travels between them is what is tested."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import DEFAULT_EXCHANGE, Topology
from fuseline.amqp.wire import Claim, Command, ControlNotice, Heartbeat, Reply, read
from fuseline.clock import SystemClock
from fuseline.coordinator.bundles import reports_in
from fuseline.errors import FuselineError
from fuseline.model import StepAssignment, StepReport, WorkflowSchema
from fuseline.notify import Notifier
from fuseline.worker.amqp_source import AmqpSource
from fuseline.worker.catalog import Catalog
from fuseline.worker.executors import LoopExecutor, ThreadExecutor
from fuseline.worker.executors.loops import new_event_loop
from fuseline.worker.options import Options
from fuseline.worker.slots import Slots
from tests.integration.amqp.harness import delete_topology
from tests.unit.worker.bodies import SCHEMA, sealer

CLOCK = SystemClock()
SECONDS = 20.0

Item = TypeVar("Item")


class PlayedCoordinator:
    """Declares, answers and listens as a coordinator does, and decides nothing by itself."""

    def __init__(self, url: str, topology: Topology, schemas: Sequence[WorkflowSchema] = (SCHEMA,)) -> None:
        self.url = url
        self.topology = topology
        self.schemas = schemas
        self.registered: queue.Queue[dict[str, Any]] = queue.Queue()
        self.checked: queue.Queue[dict[str, Any]] = queue.Queue()
        self.incoming: queue.Queue[Claim | StepReport] = queue.Queue()
        self.beats: queue.Queue[tuple[Heartbeat, str | None]] = queue.Queue()
        self.dead: queue.Queue[Delivery] = queue.Queue()
        self.is_current = True
        self.refuses: FuselineError | None = None
        self.link = BackgroundLink(url, name="played coordinator")

    def declare(self) -> None:
        """The topology of everything that the test's workers need."""
        resources = self.topology.base_resources()
        for schema in self.schemas:
            resources += self.topology.workflow_resources(*schema.key)
        self.link.declare(resources, deadline_seconds=SECONDS)

    def serve(self) -> None:
        """Answer and listen."""
        self.link.consume(self.topology.commands_queue, 100, self._command)
        self.link.consume(self.topology.reports_queue, 100, self._report)
        self.link.consume(self.topology.dead_queue, 100, self._took_dead)
        self.link.consume(self.topology.heartbeats_queue("test"), 100, self._beat)

    def assign(
        self,
        instance_id: str,
        step: str = "a",
        *,
        attempt: int = 1,
        timeout: float | None = None,
        expiration: float | None = None,
        schema: WorkflowSchema = SCHEMA,
        traceparent: str | None = None,
        body: bytes | None = None,
        inputs: dict[str, Any] | None = None,
    ) -> None:
        """Queue one assignment."""
        assignment = StepAssignment(
            workflow_id=schema.workflow_id,
            workflow_version=schema.version,
            instance_id=instance_id,
            step_name=step,
            attempt=attempt,
            payload={"workflow_inputs": inputs or {}, "results": {}},
            assigned_at=CLOCK.now(),
            expires_at=CLOCK.now() + 60,
            timeout_seconds=timeout,
        )
        self.link.publish(
            self.topology.steps_exchange,
            self.topology.steps_key(*schema.key),
            codec.encode(assignment) if body is None else body,
            codec.properties(
                codec.ASSIGNMENT,
                message_id=f"{instance_id}/{step}/{attempt}",
                timestamp=CLOCK.now(),
                correlation_id=instance_id,
                expiration_seconds=expiration,
                traceparent=traceparent,
            ),
            deadline_seconds=SECONDS,
        )

    def notify(self, address: str, notice: ControlNotice) -> None:
        """Tell the worker that has this reply address."""
        self.link.publish(
            DEFAULT_EXCHANGE,
            address,
            codec.encode(notice),
            codec.properties(codec.CONTROL, message_id=CLOCK.new_id(), timestamp=CLOCK.now()),
            deadline_seconds=SECONDS,
            mandatory=False,  # RabbitMQ says of every reply address that it is not routed
        )

    def report(self) -> StepReport:
        """The next message, which is a report."""
        one = self.incoming.get(timeout=SECONDS)
        assert isinstance(one, StepReport), one
        return one

    def claim(self) -> Claim:
        """The next message, which is a claim."""
        one = self.incoming.get(timeout=SECONDS)
        assert isinstance(one, Claim), one
        return one

    def beat(self, true: Callable[[Heartbeat], bool] = lambda _beat: True) -> tuple[Heartbeat, str]:
        """The next beat of which that is true, and the worker's address."""
        while True:
            beat, address = self.beats.get(timeout=SECONDS)
            if true(beat):
                assert address is not None
                return beat, address

    def ready(self, schema: WorkflowSchema = SCHEMA) -> int:
        """How many assignments wait in the queue, held by nobody."""
        count = self.link.count(self.topology.steps_queue(*schema.key), deadline_seconds=SECONDS)
        assert count is not None
        return count.messages

    def close(self) -> None:
        """Leave, and remove what was declared."""
        self.link.close(0)
        delete_topology(self.url, self.topology, [schema.key for schema in self.schemas])

    # ---- on the link's thread

    def _command(self, delivery: Delivery) -> None:
        assert delivery.exchange == self.topology.worker_commands_exchange
        command = read(Command, delivery.body)
        if command.name == "register":
            self.registered.put(command.args)
            result: Any = {"worker_id": command.args["worker_id"]}
        else:
            assert command.name == "check"
            self.checked.put(command.args)
            result = {"current": self.is_current, "known": True}
        reply = Reply(ok=True, result=result) if self.refuses is None else Reply.failure(self.refuses)
        self.link.link.publish(
            DEFAULT_EXCHANGE,
            str(delivery.properties.reply_to),
            codec.encode(reply),
            codec.properties(
                codec.REPLY,
                message_id=CLOCK.new_id(),
                timestamp=CLOCK.now(),
                correlation_id=delivery.properties.correlation_id,
            ),
            on_done=lambda _error: None,
            deadline_seconds=SECONDS,
            mandatory=False,
        )
        self.link.link.ack(delivery)

    def _report(self, delivery: Delivery) -> None:
        for part in reports_in(delivery):
            one = read(Claim if part.properties.type == codec.CLAIM else StepReport, part.body)
            assert isinstance(one, Claim | StepReport)
            assert delivery.exchange == self.topology.reports_exchange(one.workflow_id)
            self.incoming.put(one)
        self.link.link.ack(delivery)

    def _beat(self, delivery: Delivery) -> None:
        self.beats.put((read(Heartbeat, delivery.body), delivery.properties.reply_to))
        self.link.link.ack(delivery)

    def _took_dead(self, delivery: Delivery) -> None:
        self.dead.put(delivery)
        self.link.link.ack(delivery)


class ThreadedWorker:
    """An `AmqpSource` on a loop in a thread."""

    def __init__(self, url: str, topology: Topology, catalog: Catalog, **options: Any) -> None:
        values: dict[str, Any] = {
            "concurrency": 4,
            "heartbeat_seconds": 0.2,
            "claim_after_seconds": 60.0,
            "drain_seconds": 0.0,
        }
        self.options = Options(**(values | options))
        self.threads, self.loops = ThreadExecutor(), LoopExecutor()
        self.source = AmqpSource(
            url,
            topology,
            catalog,
            Slots(self.options.concurrency, self.threads, self.loops),
            sealer(),
            self.options,
            CLOCK,
            Notifier({}),
            "w1",
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self.result: int | BaseException | None = None
        self._has_loop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self, idle_seconds: float | None = None) -> None:
        """Begin; returns at once."""
        self._idle_seconds = idle_seconds
        self._thread.start()
        assert self._has_loop.wait(SECONDS)

    def stop(self) -> None:
        """As a signal does."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.source.stop)

    def join(self) -> int:
        """Wait for the end; how many attempts ran, or raises what ended it."""
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        self.threads.close()
        self.loops.close()
        if isinstance(self.result, BaseException):
            raise self.result
        assert self.result is not None
        return self.result

    def close(self) -> None:
        """Make sure that it is gone."""
        if self._thread.is_alive():
            self.stop()
            self.stop()
            self._thread.join(SECONDS)
        self.threads.close()
        self.loops.close()

    def _run(self) -> None:
        async def main() -> int:
            self._loop = asyncio.get_running_loop()
            self._has_loop.set()
            return await self.source.run(self._idle_seconds)

        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            try:
                self.result = runner.run(main())
            except FuselineError as error:
                self.result = error


class Relay:
    """Passes TCP on to a server, until it is cut; then lets nobody through until it is mended."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._is_cut = False
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def cut(self) -> None:
        """Break every connection, and refuse more."""
        with self._lock:
            self._is_cut = True
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                with contextlib.suppress(OSError):  # the other end was faster
                    one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._is_cut = False

    def close(self) -> None:
        """For good."""
        self.cut()
        self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(SECONDS)

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with self._server:
            while True:
                try:
                    client, _ = self._server.accept()
                except OSError:
                    return  # closed
                with self._lock:
                    if self._is_cut:
                        client.close()
                        continue
                    server = socket.create_connection(self._target)
                    self._pairs.append((client, server))
                self._spawn(self._join, client, server)

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
            back.start()
            self._pass_on(client, server)
            back.join()

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):  # cut, or an end is gone
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
