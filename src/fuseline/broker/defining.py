"""How much of a definition a command carries: all of it, its digest, or nothing, as coordinators have it already."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from fuseline.broker.asking import Asking
from fuseline.errors import DefinitionNeededError, InvalidMessageError, UnknownWorkflowError
from fuseline.model.schema import WorkflowSchema

WHOLE_UP_TO_STEPS: Final = 50
"""A definition with so few steps is sent at once: reading it costs less than the second way that its digest may need."""


class Defining:
    """The definitions that a coordinator has got from this broker, or has said to have. Thread-safe."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._lock = threading.Lock()
        self._defined: dict[tuple[str, str], WorkflowSchema] = {}

    def defined(self, schemas: Iterable[WorkflowSchema]) -> None:
        """They are registered."""
        with self._lock:
            self._defined.update((schema.key, schema) for schema in schemas)

    def of(self, keys: Iterable[tuple[str, str]]) -> list[WorkflowSchema]:
        """What was registered last of these versions."""
        with self._lock:
            return [self._defined[key] for key in keys]

    def dispatch(self, workflow: WorkflowSchema, command: str, each: Sequence[dict[str, Any]]) -> list[Any]:
        """The answers to dispatches with these arguments, which are asked for so that the definition counts from now on.

        What an attempt to do with less has begun are the same runs: they have their ids already (P3).
        """
        version = {"workflow_id": workflow.workflow_id, "version": workflow.version}
        commands = [version | args for args in each]
        with self._lock:
            is_defined = self._defined.get(workflow.key) == workflow
        answers = None
        if is_defined:
            with suppress(UnknownWorkflowError):  # the coordinator has another database than before
                answers = self._asking.ask_all(command, commands)
        elif len(workflow.steps) > WHOLE_UP_TO_STEPS:
            # A coordinator that is older than digests says that the message is wrong.
            with suppress(DefinitionNeededError, UnknownWorkflowError, InvalidMessageError):
                named = _with_first(commands, digest=workflow.digest)
                answers = self._asking.ask_all(command, named, first_alone=True)
        if answers is None:
            whole = _with_first(commands, definition=workflow.model_dump(mode="json"))
            answers = self._asking.ask_all(command, whole, first_alone=True)
        self.defined([workflow])
        return answers


def _with_first(commands: Sequence[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    """The first of them says it for all: the others wait for its answer."""
    return [commands[0] | more, *commands[1:]]
