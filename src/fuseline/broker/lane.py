"""The short way between a broker and a worker in one process: many reports and many steps in one call, and no polling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fuseline.broker.ready import Fence
from fuseline.errors import CallerError
from fuseline.model.messages import StepAssignment, StepReport
from fuseline.model.schema import WorkflowSchema


@dataclass(frozen=True, slots=True)
class Told:
    """A report, and the same as JSON (`amqp.codec`), which is what counts for the result."""

    report: StepReport
    body: bytes


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What came of an exchange: for each report None or why it was refused, and the steps that the worker holds now."""

    refusals: list[CallerError | None]
    assignments: list[StepAssignment]


class Lane(ABC):
    """What `Worker` uses in place of `get_step` and `report_step` where a broker is one of these. Thread-safe."""

    @property
    def is_whole(self) -> bool:
        """False where a subclass has its own `get_step` or `report_step`, to see each step."""
        return True

    @abstractmethod
    def register_worker(self, workflows: Iterable[WorkflowSchema]) -> str:
        """See `Broker`."""

    @abstractmethod
    def keep_alive(self, worker_id: str, *, holds: Iterable[Fence] | None = None) -> None:
        """See `Broker`. `holds`: carry on only these (instance_id, step, attempt)."""

    @abstractmethod
    def exchange(self, worker_id: str, reports: Sequence[Told], wanted: int) -> Exchanged:
        """Record these reports, and get up to `wanted` steps, some of which may be ready because of them.

        Payloads are the broker's own and not to be changed: what a body is called with is made anew from them (`bind`).
        All of it is durable when it returns (P4); each report is refused or taken by itself. Fewer steps than wanted: no
        more were ready. Raises `UnknownWorkerError`, and `RetryableError` when nothing is known to have happened: safe to
        repeat.
        """

    @abstractmethod
    def on_ready(self, worker_id: str, wake: Callable[[], None] | None) -> None:
        """Call `wake` whenever steps have become ready, on any thread; it must return at once. None: no longer."""


def lane_of(broker: object) -> Lane | None:
    """The short way to this broker; None where there is none."""
    return broker if isinstance(broker, Lane) and broker.is_whole else None
