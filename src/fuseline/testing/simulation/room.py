"""One seed from its beginning to its end: the parties, their restarts, the healing, and when it is over."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fuseline.engine.effects import Verdict
from fuseline.model.schema import WorkflowSchema
from fuseline.testing.simulation.bodies import Bodies
from fuseline.testing.simulation.parties import Machines, SimClient, SimCoordinator, SimWorker
from fuseline.testing.simulation.queues import SimQueue
from fuseline.testing.simulation.server import Server
from fuseline.testing.simulation.storage import Database
from fuseline.testing.simulation.workload import PlannedRun, Workload, make_workload
from fuseline.testing.simulation.world import START, Process, World

BOUND_SECONDS = 900.0
"""Virtual time after the last fault within which all must be over (P1)."""
LEFTOVERS_SECONDS = 5.0
"""And so long everything runs on afterwards, for whatever comes late."""


class Room:
    """The machines of one seed. `work`: what is asked of them, drawn from the seed unless it is given."""

    def __init__(self, seed: int, work: Workload | None = None) -> None:
        self.world = world = World(seed)
        random = world.random
        self.horizon_seconds = random.choice((4.0, 8.0, 8.0, 16.0)) if random.random() < 0.95 else 50.0
        self.server = Server(world)
        self.database = Database()
        self.work: Workload = work or make_workload(random, self.horizon_seconds)
        scripts = {
            (run.instance_id, name): script for run in self.work.runs for name, script in run.scripts.items()
        }
        self.machines = Machines(world, self.server, self.database, Bodies(scripts))
        self.batch = random.choice((2, 10, 50))
        self.processes: dict[str, Process] = {}
        self.all_processes: list[Process] = []
        self.coordinators: list[SimCoordinator] = []
        self.is_healed = False
        self._starts = 0
        self._unasked: set[str] = set()
        self._has_old_worker = False
        self.recovery_seconds = 0.0

    # ---- parties

    def start_all(self) -> None:
        """Switch everything on."""
        random = self.world.random
        for index in range(random.choice((1, 1, 2))):
            self._keep(f"c{index}", self._new_coordinator)
        for index in range(random.choice((1, 2, 2, 3))):
            concurrency = random.choice((1, 2, 4))
            self._keep(f"w{index}", partial(self._new_worker, concurrency=concurrency))
        self._keep("client", lambda name: SimClient(self.machines, name))
        for run in self.work.runs:
            self._unasked.add(run.instance_id)
            self.world.at(START + run.at, self._dispatch, run)
            if run.cancel_at is not None:
                self.world.at(START + run.cancel_at, self._cancel, run)

    def _keep(self, slot: str, make: Callable[[str], Process]) -> None:
        """Start a process now, and again a while after each of its deaths."""
        self._starts += 1
        name = slot if slot not in self.processes else f"{slot}.{self._starts}"
        process = make(name)
        self.all_processes.append(process)
        self.processes[slot] = process

        def again() -> None:
            self.world.later(self._restart_delay(), self._keep, slot, make)

        process.on_death = again

    def _restart_delay(self) -> float:
        random = self.world.random
        if self.is_healed or random.random() < 0.6:
            return random.uniform(0.05, 0.5)
        return random.uniform(0.5, 9.0)

    def _new_coordinator(self, name: str) -> Process:
        coordinator = SimCoordinator(self.machines, name, self.batch)
        self.coordinators.append(coordinator)
        return coordinator

    def _new_worker(self, name: str, concurrency: int) -> Process:
        random = self.world.random
        schemas: list[WorkflowSchema] = [random.choice(found) for found in self.work.versions.values()]
        if len(schemas) > 1 and not self.is_healed and random.random() < 0.15:
            self._has_old_worker = True
            schemas.pop()  # an old worker, which does not know the newest version yet
        work = self.work
        return SimWorker(self.machines, name, schemas, concurrency, work.fusion_hops, work.tick_seconds)

    def _client(self) -> SimClient | None:
        client = self.processes["client"]
        return client if isinstance(client, SimClient) and client.is_alive else None

    def on_client(self, act: Callable[[SimClient], None]) -> None:
        """Have the dispatcher do it, as soon as there is one."""
        client = self._client()
        if client is None or client.is_paused:
            self.world.later(0.5, self.on_client, act)
        else:
            act(client)

    def _dispatch(self, run: PlannedRun) -> None:
        with_definition = self.world.random.random() < 0.3

        def dispatch(client: SimClient) -> None:
            self._unasked.discard(run.instance_id)
            client.dispatch(run, with_definition=with_definition)

        self.on_client(dispatch)

    def _cancel(self, run: PlannedRun) -> None:
        self.on_client(lambda client: client.cancel(run))

    # ---- the end

    def heal(self) -> None:
        """No more faults."""
        self.is_healed = True
        server = self.server
        self.world.history.add("healed", "adversary")
        self.world.slow = 1.0
        self.database.is_up, self.database.failing = True, 0.0
        server.chance_of_duplicates = server.chance_of_loss = 0.0
        server.is_refusing = server.is_frozen = False
        if server.is_alarmed:
            server.set_alarm(False)
        server.flow()
        if not server.is_up:
            server.recover()
        for process in self.processes.values():
            process.fuse = None
            if process.is_paused:
                process.resume()
        if self._has_old_worker:  # every version has a worker from now on, as P1 presumes
            self._keep("w9", partial(self._new_worker, concurrency=2))

    def run(self) -> None:
        """Live through it."""
        world = self.world
        world.run(START + self.horizon_seconds)
        self.heal()
        healed_at = world.now
        world.run(healed_at + BOUND_SECONDS, self.is_over)
        self.recovery_seconds = world.now - healed_at
        world.run(world.now + LEFTOVERS_SECONDS)
        # A worker may be on its way up at any moment, as long as a step kills one after the other.
        world.run(world.now + BOUND_SECONDS, self.is_over, check_seconds=0.3)
        for coordinator in self.coordinators:
            counts = coordinator.coordinator.ledger.counts
            for verdict in (Verdict.DUPLICATE, Verdict.STALE, Verdict.EARLY):
                world.history.counts[f"seen: {verdict.value} event"] += counts[verdict]

    def clear(self) -> None:
        """Undo the largest knots, so that most of it is freed at once and not by the garbage collector."""
        for connection in self.server.all_connections:
            for channel in connection.channels:
                channel.__dict__.clear()
            connection.__dict__.clear()
        for process in self.all_processes:
            process.__dict__.clear()
        self.world.clear()
        self.coordinators.clear()
        self.processes.clear()

    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return not self.left_over()

    def left_over(self) -> list[str]:
        """What is still there that should not be there for ever."""
        left = [
            f"queue {queue.name} has {len(queue.ready)} ready, {queue.unacked} unacked"
            for queue in self.busy_queues()
        ]
        rows = self.database.rows
        left += [
            f"run {run.instance_id} is {run.status}" for run in rows.list_runs() if not run.status.is_terminal
        ]
        left += [f"timer at {due - START:.3f}" for due in [rows.next_due()] if due is not None]
        for process in self.processes.values():
            if isinstance(process, SimWorker) and process.is_alive and len(process.attempts.held):
                left.append(f"{process.name} holds {[held.key for held in process.attempts.held]}")
        left += [f"{instance_id} was not asked for yet" for instance_id in sorted(self._unasked)]
        if (client := self._client()) is not None:
            left += [f"{what} has no answer" for what in sorted(client.pending)]
        return left

    def busy_queues(self) -> list[SimQueue]:
        """Shared queues with something in them."""
        return [
            queue
            for queue in self.server.queues.values()
            if queue.owner is None and (queue.ready or queue.unacked)
        ]
