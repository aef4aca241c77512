"""What a runtime needs of a place where bodies run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from fuseline.model.messages import StepAssignment
from fuseline.worker.reports import Sealed

Done: TypeAlias = Callable[[Sealed], None]
"""Takes the outcome of a job, on a thread of the executor; called at most once, and never after `Running.stop`."""


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt, ready to be executed: exactly one of `sync` and `coroutine` is what runs.

    Neither raises: whatever happens in a step comes back as a report. `cancel` tells the body (`ctx.cancelled`) that
    nobody waits for it any more; it is called from another thread than the body's. `timed_out` is the report of its
    timeout for which the user's policies have to be asked, on a thread that may block; None: nobody has to be asked.
    """

    assignment: StepAssignment
    sync: Callable[[], Sealed] | None = None
    coroutine: Callable[[], Awaitable[Sealed]] | None = None
    cancel: Callable[[], None] = field(default=lambda: None)
    timed_out: Callable[[], Sealed] | None = None

    @property
    def is_async(self) -> bool:
        """Whether it runs on a loop."""
        return self.coroutine is not None


class Running(Protocol):
    """A job under way."""

    def stop(self) -> bool:
        """End it as far as that can be done, and drop its outcome. False: too late, the outcome is handed over."""


class Executor(ABC):
    """Starts jobs at once, one thread, task or process each; how many run together is for the runtime to bound.

    What cannot be stopped is abandoned: it runs on, is counted in `abandoned` until it ends, and then `on_freed` is
    called (on a thread of the executor).
    """

    on_freed: Callable[[], None] | None = None

    @property
    @abstractmethod
    def abandoned(self) -> int:
        """How many stopped jobs have not ended yet."""

    @abstractmethod
    def start(self, job: Job, done: Done) -> Running:
        """Run `job`, then call `done`."""

    def prepare(self) -> None:  # noqa: B027 - most executors need nothing before the first job
        """Do beforehand what the first job would have to wait for. Raises `LoadError` when jobs could not run."""

    @abstractmethod
    def close(self) -> None:
        """Free what is idle and stop what can be stopped, without waiting for bodies that run on."""
