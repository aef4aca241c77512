"""Time, chance and processes: one heap of calls, one random generator, one thread.

Whatever happens is a call at a virtual time. A process can be killed between any two of its effects (`Process.effect`),
paused (its calls wait) and its calls are dropped once it is dead.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fuseline.clock import Clock
from fuseline.testing.simulation.history import History

if TYPE_CHECKING:
    from fuseline.testing.simulation.server import Server

START = 1_700_000_000.0


class Killed(BaseException):
    """The process that is executing right now was killed: nothing of it happens any more."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.name)
        self.process = process


class Call:
    """Something that will happen; `cancel` makes it not happen."""

    __slots__ = ("args", "callback", "process")

    def __init__(
        self, process: Process | None, callback: Callable[..., object] | None, args: tuple[Any, ...]
    ) -> None:
        self.process = process
        self.callback = callback
        self.args = args

    def cancel(self) -> None:
        """Forget it."""
        self.callback = None


class World:
    """The virtual machine room of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = START
        self.history = History(self)
        self.clock = SimClock(self)
        self.slow = 1.0  # factor on all latencies
        self._heap: list[tuple[float, int, Call]] = []
        self._count = 0
        self.calls = 0

    def later(
        self, seconds: float, callback: Callable[..., object], *args: Any, process: Process | None = None
    ) -> Call:
        """Have it happen `seconds` from now."""
        return self.at(self.now + seconds, callback, *args, process=process)

    def at(
        self, time: float, callback: Callable[..., object], *args: Any, process: Process | None = None
    ) -> Call:
        """Have it happen at `time`; what is due together happens in the order of asking."""
        call = Call(process, callback, args)
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, call))
        return call

    def push(self, time: float, call: Call) -> None:
        """Put a call on the heap."""
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, call))

    def clear(self) -> None:
        """Nothing will happen any more."""
        self._heap.clear()

    def latency(self) -> float:
        """Seconds that one frame needs."""
        return (0.0003 + 0.004 * self.random.random()) * self.slow

    def run(
        self, until: float, is_over: Callable[[], bool] | None = None, check_seconds: float = 1.0
    ) -> bool:
        """Let time pass until `until`, or until `is_over` says so (asked every `check_seconds`); whether it did."""
        heap = self._heap
        next_check = self.now + check_seconds
        while heap and heap[0][0] <= until:
            if is_over is not None and heap[0][0] >= next_check:
                if is_over():
                    return True
                next_check = heap[0][0] + check_seconds
            time, _, call = heapq.heappop(heap)
            callback, process = call.callback, call.process
            if callback is None:
                continue
            self.now = time
            if process is not None:
                if not process.is_alive:
                    continue
                if process.is_paused:
                    process.backlog.append(call)
                    continue
            self.calls += 1
            try:
                callback(*call.args)
            except Killed as killed:
                killed.process.die()
            except Exception as error:
                if process is None:
                    raise
                self.history.crashed(process.name, error)
                process.die()
        self.now = max(self.now, until)
        return is_over is not None and is_over()


class Process:
    """One process of ours. `fuse`: how many effects it has left, None for all that it wants."""

    def __init__(self, world: World, server: Server, name: str) -> None:
        self.world = world
        self.server = server
        self.name = name
        self.is_alive = True
        self.is_paused = False
        self.fuse: int | None = None
        self.backlog: list[Call] = []
        self.loop = SimLoop(self)
        self.on_death: Callable[[], None] | None = None

    def effect(self) -> None:
        """Something that others can see is about to happen. Raises `Killed`."""
        if not self.is_alive:
            raise Killed(self)
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise Killed(self)

    def die(self) -> None:
        """As by kill -9."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.backlog.clear()
        self.world.history.add("killed", self.name)
        self.server.process_died(self)
        if self.on_death is not None:
            self.world.later(0.0, self.on_death)

    def exit(self) -> None:
        """It ends by itself."""
        if self.is_alive:
            self.is_alive = False
            self.world.history.add("exited", self.name)
            self.server.process_died(self)
            if self.on_death is not None:
                self.world.later(0.0, self.on_death)

    def pause(self) -> None:
        """As by SIGSTOP."""
        self.is_paused = True

    def resume(self) -> None:
        """As by SIGCONT: all that it missed happens now."""
        self.is_paused = False
        backlog, self.backlog = self.backlog, []
        for call in backlog:
            self.world.push(self.world.now, call)


class SimLoop:
    """A process's loop, as a link (`LoopAdapter`), the coordinator and the worker's asyncio code use one."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world

    def connect(self, _parameters: Any, on_open: Any, on_open_error: Any, on_close: Any) -> Any:
        """Begin to open a connection."""
        return self._process.server.connect(self._process, on_open, on_open_error, on_close)

    def abort(self, connection: Any) -> None:
        """Drop a connection without asking the server."""
        connection.abort()

    def flush(self, connection: Any) -> None:
        """What was written has left already."""

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Call:
        """Call it in `seconds`."""
        return self._world.at(self._world.now + max(0.0, seconds), callback, *args, process=self._process)

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call it in this moment, after what is under way."""
        self._world.at(self._world.now, callback, *args, process=self._process)

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        """As `call_soon`: there is one thread."""
        self._world.at(self._world.now, callback, *args, process=self._process)

    def time(self) -> float:
        """The loop's clock."""
        return self._world.now

    def run(self) -> None:
        """The world runs it."""

    def stop(self) -> None:
        """The process has done its last."""
        self._world.at(self._world.now, self._process.exit)

    def close(self) -> None:
        """Nothing to give back."""


class SimClock(Clock):
    """The world's time and chance."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        return self._world.now

    def monotonic(self) -> float:
        return self._world.now

    def random(self) -> float:
        return self._world.random.random()

    def token_bytes(self, count: int) -> bytes:
        return self._world.random.randbytes(count)
