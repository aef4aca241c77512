"""What a worker can execute, as the runtimes see it: schemas, and a job for each assignment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias

from fuseline.model.messages import StepAssignment
from fuseline.model.schema import WorkflowSchema
from fuseline.worker.executors.base import Job

RunCoroutine: TypeAlias = Callable[[Coroutine[Any, Any, Any]], object]


class Catalog(ABC):
    """The workflow versions of one worker."""

    @property
    @abstractmethod
    def schemas(self) -> Sequence[WorkflowSchema]:
        """To register."""

    @property
    def keys(self) -> list[tuple[str, str]]:
        """(workflow_id, version) of each."""
        return [schema.key for schema in self.schemas]

    @abstractmethod
    def knows(self, assignment: StepAssignment) -> bool:
        """Whether the assignment is of one of these workflow versions."""

    @abstractmethod
    def job(self, assignment: StepAssignment, started_at: float) -> Job:
        """What executes the assignment. Never raises: what is wrong with it is the report of the job.

        It changes nothing of the assignment: a step that is gone on with gets of its payload what this one got.
        """

    def end(self, run: RunCoroutine) -> None:  # noqa: B027 - what has no hooks has nothing to end
        """Nothing more will be executed in this process; `run` executes what has to be awaited."""
