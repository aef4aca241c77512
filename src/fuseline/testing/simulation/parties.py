"""The processes: coordinators as they are, workers without their asyncio shell, and whoever dispatches and cancels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.link import Link
from fuseline.amqp.loops import SelectLoop
from fuseline.amqp.topology import Topology
from fuseline.amqp.wire import Command, ControlKind, ControlNotice, Reply, read
from fuseline.coordinator.daemon import Coordinator
from fuseline.errors import CallerError, FuselineError, InvalidMessageError
from fuseline.model.schema import WorkflowSchema
from fuseline.testing.simulation.bodies import Bodies, SimCatalog, SimExecutor
from fuseline.testing.simulation.server import Server
from fuseline.testing.simulation.storage import Database, Session
from fuseline.testing.simulation.workload import LEASE_SECONDS, RULES, PlannedRun
from fuseline.testing.simulation.world import Process, World
from fuseline.worker.attempts import Attempts
from fuseline.worker.intake import Intake
from fuseline.worker.options import Options
from fuseline.worker.outgoing import Outgoing
from fuseline.worker.reports import Sealer
from fuseline.worker.slots import Slots

URL = "amqp://simulated/"
DRAIN_SECONDS = 3.0
HAND_BACK_SECONDS = 5.0
FEW = (0, 0, 1, 20)
"""Batches here are small; what a coordinator does with large ones is to happen all the same."""


class Machines:
    """What all processes share: the world, the server, the database, the names."""

    def __init__(self, world: World, server: Server, database: Database, bodies: Bodies) -> None:
        self.world = world
        self.server = server
        self.database = database
        self.bodies = bodies
        self.topology = Topology("sim")
        self._plain: dict[int, dict[str, Any]] = {}

    def plain(self, schema: WorkflowSchema) -> dict[str, Any]:
        """The schema as JSON has it."""
        found = self._plain.get(id(schema))
        if found is None:
            found = self._plain[id(schema)] = schema.model_dump(mode="json")
        return found


class SimCoordinator(Process):
    """A real `Coordinator`, from its start to its death."""

    def __init__(self, machines: Machines, name: str, batch: int) -> None:
        super().__init__(machines.world, machines.server, name)
        self.coordinator = Coordinator(
            Session(machines.database, self),
            URL,
            topology=machines.topology,
            clock=machines.world.clock,
            rules=RULES,
            batch=batch,
            loop=cast(SelectLoop, self.loop),
            few=machines.world.random.choice(FEW),
        )
        self.world.at(self.world.now, self._begin, process=self)

    def _begin(self) -> None:
        self.world.history.add("started", self.name)
        self.coordinator.run()  # returns at once: the world runs its loop

    def stop(self) -> None:
        """As by SIGTERM."""
        self.coordinator.stop()


class SimWorker(Process):
    """A worker: its real link, attempts, leases and claims; what `AmqpSource` awaits is done with timers here."""

    def __init__(
        self,
        machines: Machines,
        name: str,
        schemas: Sequence[WorkflowSchema],
        concurrency: int,
        fusion_hops: int = 0,
        tick_seconds: float = 0.0,
    ) -> None:
        super().__init__(machines.world, machines.server, name)
        world, topology = machines.world, machines.topology
        self._machines = machines
        self._concurrency = concurrency
        sealer = Sealer(world.clock, 1_000_000, name)
        self._catalog = SimCatalog(schemas, machines.bodies, sealer)
        executor = SimExecutor(self, machines.bodies, concurrency, tick_seconds)
        slots = Slots(concurrency, executor, executor)
        self._options = Options(
            concurrency,
            heartbeat_seconds=LEASE_SECONDS / 2.5,
            claim_after_seconds=1.0,
            drain_seconds=DRAIN_SECONDS,
            call_seconds=5.0,
            fusion_hops=fusion_hops,
        )
        self._link = Link(
            URL, self.loop, name=name, clock=world.clock, on_up=self._came_up, on_notice=self._noticed
        )
        self._outgoing = Outgoing(self._link, topology, world.clock, name)
        # The attempts ask for the running loop when they are made, and use no more of asyncio than its timers.
        asyncio._set_running_loop(cast(asyncio.AbstractEventLoop, self.loop))
        try:
            self.attempts = Attempts(
                self._catalog,
                slots,
                self._outgoing,
                sealer,
                self._options,
                world.clock,
                name,
                on_change=self._changed,
                on_fatal=self._give_up,
                on_missing=self._reregister,
            )
        finally:
            asyncio._set_running_loop(None)
        queues = [topology.steps_queue(*key) for key in self._catalog.keys]
        self.attempts.intake = Intake(
            self._link, queues, self.attempts.receive, self.attempts.pump, self.attempts.lost
        )
        self.is_ready = False
        self._is_stopping = False
        self._is_reregistering = False
        self._when_empty: Callable[[], None] | None = None
        world.at(world.now, self._begin, process=self)

    # ---- as AmqpSource.run

    def _begin(self) -> None:
        self.world.history.add("started", self.name)
        self._link.start()
        self._register(1.0)

    def _register(self, pause: float) -> None:
        self._ask_to_register(partial(self._registered, pause))

    def _ask_to_register(self, then: Callable[[Any], None]) -> None:
        args = {
            "workflows": [self._machines.plain(schema) for schema in self._catalog.schemas],
            "worker_id": self.name,
        }
        self._outgoing.ask("register", args, then, self._options.call_seconds)

    def _reregister(self) -> None:
        if not self._is_reregistering and not self._is_stopping:
            self._is_reregistering = True
            self._ask_to_register(self._reregistered)

    def _reregistered(self, _outcome: Any) -> None:
        self._is_reregistering = False

    def _registered(self, pause: float, outcome: Any) -> None:
        if self._is_stopping:
            return
        if isinstance(outcome, FuselineError):
            if isinstance(outcome, CallerError):
                raise outcome
            self.loop.call_later(pause, self._register, min(2 * pause, 30.0))
            return
        self.is_ready = True
        self.attempts.intake.resize(self._concurrency)
        self._keep_beating()

    def _keep_beating(self) -> None:
        self._beat()
        self.loop.call_later(self._options.heartbeat_seconds, self._keep_beating)

    def _beat(self) -> None:
        self._outgoing.beat(self._catalog.keys, self.attempts.held.leases(), self._options.heartbeat_seconds)

    def _came_up(self) -> None:
        if self.is_ready:
            self._beat()

    def _noticed(self, delivery: Delivery) -> None:
        try:
            notice = read(ControlNotice, delivery.body)
        except InvalidMessageError:
            return  # an answer whose question is given up
        if notice.worker_id is not None and notice.worker_id != self.name:
            return
        if notice.kind is ControlKind.STOP:
            self.attempts.stop_meant(notice)

    def _give_up(self, error: FuselineError) -> None:
        self.world.history.add("gives-up", self.name, str(error))
        self.stop()

    def stop(self) -> None:
        """As by SIGTERM: drain, hand back, leave."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self.world.history.add("drains", self.name)
        self.attempts.drain()
        self._wait_until_empty(DRAIN_SECONDS, self._hand_back)

    def _hand_back(self) -> None:
        self.attempts.hand_back()
        self._wait_until_empty(HAND_BACK_SECONDS, self._leave)

    def _leave(self) -> None:
        self.attempts.close()
        self._outgoing.is_closed = True
        self._link.close(5.0, self.exit)

    def _wait_until_empty(self, seconds: float, then: Callable[[], None]) -> None:
        def go_on() -> None:
            if self._when_empty is go_on:
                self._when_empty = None
                then()

        self._when_empty = go_on
        self.loop.call_later(seconds, go_on)
        self._changed()

    def _changed(self) -> None:
        if self._when_empty is not None and not len(self.attempts.held):
            self.loop.call_soon(self._when_empty)


class SimClient(Process):
    """Whoever dispatches runs and cancels them, and repeats a call until it is answered, as `AmqpBroker`'s users do."""

    def __init__(self, machines: Machines, name: str) -> None:
        super().__init__(machines.world, machines.server, name)
        self._machines = machines
        self._topology = machines.topology
        self._clock = machines.world.clock
        self._link = Link(URL, self.loop, name=name, clock=self._clock)
        self.pending: set[str] = set()
        self.world.at(self.world.now, self._link.start, process=self)

    def dispatch(self, run: PlannedRun, *, with_definition: bool) -> None:
        """Ask for the run until there is an answer."""
        self.pending.add(f"dispatch {run.instance_id}")
        args: dict[str, Any] = {
            "workflow_id": run.schema.workflow_id,
            "version": run.schema.version,
            "instance_id": run.instance_id,
            "inputs": {"run": run.instance_id},
        }
        if with_definition:
            args["definition"] = self._machines.plain(run.schema)
        elif run.instance_id == "r0":  # one of each seed, as `AmqpBroker` does with a large definition
            args["digest"] = run.schema.digest
        self._ask("dispatch", args, partial(self._dispatched, run))

    def _dispatched(self, run: PlannedRun, outcome: Any) -> None:
        if isinstance(outcome, CallerError):
            # Not registered yet (the workers are still coming up): the definition says what it is.
            self.world.history.add("refused", self.name, "dispatch", run.instance_id, str(outcome))
            self.loop.call_later(0.2, partial(self.dispatch, run, with_definition=True))
            return
        self.pending.discard(f"dispatch {run.instance_id}")
        self.world.history.add("acked", self.name, "dispatch", run.instance_id, "")

    def cancel(self, run: PlannedRun) -> None:
        """Ask for its end until there is an answer."""
        self.pending.add(f"cancel {run.instance_id}")
        self._ask("cancel", {"instance_id": run.instance_id}, partial(self._cancelled, run))

    def _cancelled(self, run: PlannedRun, outcome: Any) -> None:
        self.pending.discard(f"cancel {run.instance_id}")
        told = type(outcome).__name__ if isinstance(outcome, FuselineError) else ""
        self.world.history.add("acked", self.name, "cancel", run.instance_id, told)

    def replay_latest(self) -> None:
        """Look for an open dead letter, and ask for its replay until there is an answer."""
        self._ask("list_dead_letters", {"state": "open", "limit": 1}, self._listed)

    def _listed(self, outcome: Any) -> None:
        for letter in outcome if isinstance(outcome, list) else ():
            self.pending.add(f"replay {letter['letter_id']}")
            self._ask(
                "replay_dead_letter", {"letter_id": letter["letter_id"]}, partial(self._replayed, letter)
            )

    def _replayed(self, letter: dict[str, Any], outcome: Any) -> None:
        self.pending.discard(f"replay {letter['letter_id']}")
        told = type(outcome).__name__ if isinstance(outcome, FuselineError) else ""
        self.world.history.add("acked", self.name, "replay", letter["instance_id"], told)

    def register(self, schema: WorkflowSchema) -> None:
        """Register a definition until there is an answer."""
        args = {"workflows": [self._machines.plain(schema)], "worker_id": "deployer"}
        self._ask("register", args, lambda _outcome: None)

    def _ask(self, name: str, args: dict[str, Any], then: Callable[[Any], None]) -> None:
        def answered(outcome: Delivery | FuselineError) -> None:
            value: Any
            if isinstance(outcome, FuselineError):
                value = outcome
            else:
                try:
                    value = read(Reply, outcome.body).value()
                except FuselineError as error:
                    value = error
            if isinstance(value, FuselineError) and not isinstance(value, CallerError):
                self.loop.call_later(0.5, partial(self._ask, name, args, then))
            else:
                then(value)

        self._link.rpc(
            self._topology.commands_exchange,
            "",
            codec.encode(Command(name=name, args=args)),
            codec.properties(
                codec.COMMAND,
                message_id=f"{name}/{args.get('instance_id')}/{self._clock.new_id()[-6:]}",
                timestamp=self._clock.now(),
            ),
            on_reply=answered,
            deadline_seconds=5.0,
        )
