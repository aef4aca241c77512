"""Schedules by hand, in the simulated machine room: for what random seeds have found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import RunStatus
from fuseline.testing.simulation.checker import Checker
from fuseline.testing.simulation.parties import SimWorker
from fuseline.testing.simulation.queues import SimQueue
from fuseline.testing.simulation.room import Room
from fuseline.testing.simulation.workload import PlannedRun, Script, Workload
from fuseline.testing.simulation.world import START, Process


class Stage:
    """One run, `r0`, dispatched after 2 s, and more of them when asked; times are seconds since the start."""

    def __init__(
        self,
        schema: WorkflowSchema,
        scripts: dict[str, Script] | None = None,
        seed: int = 0,
        more_runs_at: Sequence[float] = (),
        fusion_hops: int = 0,
    ) -> None:
        self.schema = schema
        self.scripts = {name: Script() for name in schema.steps} | (scripts or {})
        runs = [
            PlannedRun(f"r{number}", schema, at, self.scripts)
            for number, at in enumerate((2.0, *more_runs_at))
        ]
        self.room = Room(seed, Workload({schema.key: [schema]}, runs, fusion_hops))
        self.world = self.room.world
        self.room.start_all()

    def at(self, seconds: float) -> float:
        """That time on the world's clock."""
        return START + seconds

    def run_until(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run(START + seconds)

    def run_until_so(self, is_so: Callable[[], object]) -> None:
        """Let time pass until something is so, which does not take long."""
        late = self.world.now + 60.0
        while not is_so():
            assert self.world.now < late
            self.run_until(self.world.now - START + 0.0005)

    def started(self, step: str, instance_id: str = "r0") -> list[float]:
        """When the step was executed."""
        return [
            time - START
            for time, kind, _, *rest in self.world.history.events
            if kind == "start" and rest[0][:2] == (instance_id, step)
        ]

    def workers_of(self, step: str) -> list[SimWorker]:
        """Who has executed the step and is still there."""
        names = {e[2] for e in self.world.history.events if e[1] == "start" and e[3][1] == step}
        living = [one for one in self.room.processes.values() if one.name in names]
        return [one for one in living if isinstance(one, SimWorker)]

    def without_workers(self) -> None:
        """End the workers that there are, for good."""
        self.run_until(1.5)
        for slot, process in self.room.processes.items():
            if slot.startswith("w"):
                process.on_death = None
                process.die()

    def kinds(self) -> set[str]:
        """The kinds of events that there were."""
        return {event[1] for event in self.world.history.events}

    def is_let_go(self, message_id: str) -> bool:
        """Whether a consumer has acknowledged that message."""
        return any(event[1] == "settled" and event[5] == message_id for event in self.world.history.events)

    def kill(self, slot: str) -> None:
        """End the process of that slot; another one takes its place."""
        self.world.history.fault("kill", slot)
        self.room.processes[slot].die()

    def fail_commits(self, share: float) -> None:
        """Let that share of all commits fail from now on."""
        self.room.database.failing = share

    def queue(self) -> SimQueue:
        """The queue of steps."""
        return self.room.server.queues[self.room.machines.topology.steps_queue(*self.schema.key)]

    def make_queue_anew(self) -> None:
        """Delete the queue of steps, and declare it before anybody misses it."""
        topology, server, old = self.room.machines.topology, self.room.server, self.queue()
        self.world.history.fault("delete queue", "server")
        server.delete_queue(old.name, "queue deleted")
        server.declare_queue(old.name, old.arguments, None)
        server.bind(old.name, topology.steps_exchange, topology.steps_key(*self.schema.key))

    def purge(self) -> None:
        """Empty the queue of steps."""
        self.world.history.fault("purge", "server")
        self.queue().purge("purged")

    def add_worker(self, slot: str = "late", concurrency: int = 1) -> SimWorker:
        """One more."""
        hops = self.room.work.fusion_hops
        self.room._keep(
            slot, lambda name: SimWorker(self.room.machines, name, [self.schema], concurrency, hops)
        )
        worker = self.room.processes[slot]
        assert isinstance(worker, SimWorker)
        return worker

    def cut_off(self, process: Process) -> None:
        """Break its connections, and stop it until it is resumed."""
        self.world.history.fault("cut off", process.name)
        for connection in [one for one in self.room.server.connections if one.process is process]:
            connection.cut(0.0, 0.0)
        process.pause()

    def dispatch_again(self, number: int) -> None:
        """Repeat a run's dispatch, as a caller does who heard nothing: what starts the run is offered again."""
        self.room._dispatch(self.room.work.runs[number])

    def cancel(self) -> None:
        """Have the run cancelled."""
        self.room._cancel(self.room.work.runs[0])

    def has_asked(self, command: str) -> bool:
        """Whether RabbitMQ has got such a command from the client."""
        return any(e[1] == "queued" and e[5].startswith(f"{command}/") for e in self.world.history.events)

    def states(self, instance_id: str = "r0") -> list[RunStatus]:
        """How the run was after each commit that changed its header."""
        commits = [event[3:] for event in self.world.history.events if event[1] == "commit"]
        runs = [run for commit in commits for changes in commit for run in changes.runs]
        return [run.status for run in runs if run.instance_id == instance_id]

    def stopped(self) -> list[float]:
        """When workers were told to stop."""
        return [event[0] - START for event in self.world.history.events if event[1] == "stopped"]

    def violations(self) -> list[str]:
        """What the checker has against it, after all has ended."""
        self.room.run()
        return Checker(self.world.history, self.room.work.versions).check(self.room.left_over())
