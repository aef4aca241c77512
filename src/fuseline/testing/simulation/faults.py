"""The adversary: what goes wrong in one seed, when, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from fuseline.testing.simulation.connections import SimConnection
from fuseline.testing.simulation.parties import SimCoordinator, SimWorker
from fuseline.testing.simulation.room import Room
from fuseline.testing.simulation.world import START, Process

Item = TypeVar("Item")


class Adversary:
    """Draws faults for a room. Everything it does is undone by `Room.heal`, or ends by itself."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.world = room.world
        self.random = room.world.random
        self.server = room.server
        self.history = room.world.history
        self._kinds: list[tuple[int, Callable[[], None]]] = [
            (14, self.kill_at_effect),
            (6, self.kill_now),
            (8, self.pause),
            (8, self.cut),
            (4, self.restart_server),
            (4, self.purge),
            (3, self.delete_queue),
            (7, self.fail_commits),
            (3, self.database_away),
            (3, self.slow_network),
            (2, self.freeze),
            (3, self.alarm),
            (2, self.refuse),
            (5, self.duplicate),
            (4, self.drain),
            (3, self.close_channel),
            (4, self.lose_transient),
            (2, self.reorder),
            (4, self.change_policies),
        ]

    @property
    def _long(self) -> float:
        """How much longer faults take in this seed: in some, longer than any deadline of a publish."""
        return 5.0 if self.room.horizon_seconds > 20.0 else 1.0

    def plan(self) -> None:
        """Put this seed's faults on the calendar."""
        random = self.random
        count = random.choice((0, 1, 2, 3, 4, 6, 8, 12))
        kinds = [act for weight, act in self._kinds for _ in range(weight)]
        if random.random() < 0.3:  # a seed with a theme
            kinds = random.sample(kinds, 3)
        for _ in range(count):
            if random.random() < 0.7:
                run = random.choice(self.room.work.runs)
                at = run.at + random.random() * random.choice((0.3, 2.0, 8.0))
            else:
                at = random.random() * self.room.horizon_seconds
            self.world.at(START + min(at, self.room.horizon_seconds - 0.01), random.choice(kinds))

    # ---- processes

    def _victim(self) -> Process | None:
        alive = [process for process in self.room.processes.values() if process.is_alive]
        return self.random.choice(alive) if alive else None

    def kill_at_effect(self) -> None:
        """Kill a process at one of its next effects."""
        victim = self._victim()
        if victim is not None:
            victim.fuse = int(self.random.random() ** 2 * 30)
            self.history.fault("kill at an effect", victim.name, f"after {victim.fuse}")

    def kill_now(self) -> None:
        """Kill a process."""
        victim = self._victim()
        if victim is not None:
            self.history.fault("kill", victim.name)
            victim.die()

    def pause(self) -> None:
        """Stop a process for a while, as by SIGSTOP; its leases may end, its connections too."""
        victim = self._victim()
        if victim is None or victim.is_paused:
            return
        seconds = self.random.choice((0.5, 3.0, 9.0, 16.0)) * (0.5 + self.random.random())
        self.history.fault("pause", victim.name, f"{seconds:.1f} s")
        victim.pause()
        self.world.later(seconds, self._resume, victim)
        if self.random.random() < 0.3:
            for connection in [one for one in self.server.connections if one.process is victim]:
                connection.cut(seconds * self.random.random(), 0.0)

    def _resume(self, victim: Process) -> None:
        if victim.is_paused and victim.is_alive:
            self.history.add("resumed", victim.name)
            victim.resume()

    def drain(self) -> None:
        """SIGTERM."""
        victim = self._victim()
        if isinstance(victim, SimWorker | SimCoordinator):
            self.history.fault("SIGTERM", victim.name)
            self.world.at(self.world.now, victim.stop, process=victim)

    # ---- the network

    def _connection(self) -> SimConnection | None:
        return self._one([one for one in self.server.connections if not one.is_cut])

    def _one(self, items: Sequence[Item]) -> Item | None:
        return self.random.choice(items) if items else None

    def cut(self) -> None:
        """A connection breaks; each end learns of it at once, or late."""
        connection = self._connection()
        if connection is not None:
            late = [0.01 * self.random.random(), 0.01 * self.random.random()]
            if self.random.random() < 0.4:
                late[self.random.randrange(2)] = 12.0 * self.random.random() * self._long
            self.history.fault(
                "cut" if max(late) < 0.01 else "half-open connection",
                connection.process.name,
                f"server after {late[0]:.3f} s, client after {late[1]:.3f} s",
            )
            connection.cut(*late)
            # Until then nobody can tell that process anything.
            self.world.later(max(late), self.history.add, "noticed", connection.process.name)

    def close_channel(self) -> None:
        """The server closes a channel that held a delivery too long."""
        channels = [channel for one in self.server.connections for channel in one.channels if channel.unacked]
        channel = self._one(channels)
        if channel is not None:
            self.history.fault("consumer timeout", channel.connection.process.name)
            channel.server_fail(406, "PRECONDITION_FAILED - delivery acknowledgement timed out")

    def slow_network(self) -> None:
        """All frames take long."""
        self.world.slow = self.random.choice((10.0, 50.0, 300.0))
        self.history.fault("slow network", "network", f"x{self.world.slow:g}")
        self.world.later(self.random.random() * 6.0, self._fast)

    def _fast(self) -> None:
        self.world.slow = 1.0

    def lose_transient(self) -> None:
        """Heartbeats, notices and answers get lost."""
        self.server.chance_of_loss = self.random.choice((0.3, 0.7, 1.0))
        self.world.later(self.random.random() * 12.0, setattr, self.server, "chance_of_loss", 0.0)

    # ---- RabbitMQ

    def restart_server(self) -> None:
        """RabbitMQ is killed and comes back."""
        if self.server.is_up:
            seconds = self.random.choice((0.2, 2.0, 6.0)) * self.random.random() * self._long
            self.history.fault("RabbitMQ restarts", "server", f"down for {seconds:.2f} s")
            self.server.crash()
            self.world.later(seconds, self._recover)

    def _recover(self) -> None:
        if not self.server.is_up:
            self.history.add("up", "server")
            self.server.recover()

    def freeze(self) -> None:
        """No majority: nothing is confirmed or delivered until there is one."""
        self.server.is_frozen = True
        self.history.fault("no quorum", "server")
        self.world.later(self.random.random() * 8.0 * self._long, self._thaw)

    def _thaw(self) -> None:
        self.server.is_frozen = False
        self.server.flow()

    def alarm(self) -> None:
        """Short of memory."""
        if not self.server.is_alarmed:
            self.history.fault("memory alarm", "server")
            self.server.set_alarm(True)
            self.world.later(self.random.random() * 8.0 * self._long, self._calm)

    def _calm(self) -> None:
        if self.server.is_alarmed:
            self.server.set_alarm(False)

    def refuse(self) -> None:
        """Queues take no more messages."""
        self.server.is_refusing = True
        self.history.fault("full queues", "server")
        self.world.later(self.random.random() * 4.0 * self._long, setattr, self.server, "is_refusing", False)

    def duplicate(self) -> None:
        """Messages arrive twice, as after a publish whose confirm got lost."""
        self.server.chance_of_duplicates = self.random.choice((0.1, 0.5, 1.0))
        self.world.later(self.random.random() * 6.0, setattr, self.server, "chance_of_duplicates", 0.0)

    def purge(self) -> None:
        """Somebody empties a queue."""
        names = [queue.name for queue in self.server.queues.values() if queue.owner is None]
        steps = [name for name in names if ".steps." in name]
        name = self._one(steps if self.random.random() < 0.8 else names)
        if name is not None:
            count = self.server.queues[name].purge("purged")
            self.history.fault("purge", "server", f"{name}: {count} messages")
            if count:
                self.history.bit("purge of messages")

    def delete_queue(self) -> None:
        """Somebody deletes a step queue."""
        name = self._one([name for name in self.server.queues if ".steps." in name])
        if name is not None:
            self.history.fault("delete queue", "server", name)
            self.server.delete_queue(name, "queue deleted")

    def reorder(self) -> None:
        """What waits in a queue changes places."""
        queue = self._one([one for one in self.server.queues.values() if len(one.ready) > 1])
        if queue is not None:
            self.history.fault("reorder", "server", queue.name)
            self.random.shuffle(queue.ready)

    # ---- the deployment

    def change_policies(self) -> None:
        """Somebody registers the same graph with other policies."""
        found = self._one([one for one in self.room.work.versions.values() if len(one) > 1])
        if found is not None:
            schema = self.random.choice(found)
            self.history.fault("other policies", "client", "/".join(schema.key))
            self.room.on_client(lambda client: client.register(schema))

    # ---- the database

    def fail_commits(self) -> None:
        """Commits fail, before they are done or after."""
        self.room.database.failing = self.random.choice((0.2, 0.5, 0.9))
        self.history.add("failing", "database", f"{self.room.database.failing:g} of all commits")
        self.world.later(self.random.random() * 4.0, setattr, self.room.database, "failing", 0.0)

    def database_away(self) -> None:
        """No call gets through."""
        self.room.database.is_up = False
        self.history.fault("database away", "database")
        self.world.later(self.random.random() * 6.0 * self._long, setattr, self.room.database, "is_up", True)
