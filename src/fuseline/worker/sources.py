"""Where a process of its own finds the workflows: by import, since functions do not travel.

A `Workflow` that is a module's variable is named by `module:attribute`; one that was loaded from a file, as it was loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from types import ModuleType

from fuseline.errors import LoadError
from fuseline.workflow import Workflow


def target_of(workflow: Workflow) -> str:
    """`module:attribute` of a workflow object. Raises `LoadError` when no module has it."""
    # Modules are sometimes odd objects that make attributes up; only a plain namespace can be trusted.
    modules = [(name, module) for name, module in sys.modules.items() if type(module) is ModuleType]
    # The module of the running program comes last: importing it a second time may do what the program does.
    for name, module in sorted(modules, key=lambda one: one[0] == "__main__"):
        for attribute, value in list(vars(module).items()):
            if value is workflow:
                return f"{name}:{attribute}"
    raise LoadError(
        f"workflow {workflow.workflow_id!r} is no variable of a module, so that a process of its own cannot import it: "
        "make it one, name it as module:attribute, or use executor='thread'"
    )


def targets_of(workflows: Iterable[Workflow], loaded_as: Sequence[tuple[Workflow, str]]) -> list[str]:
    """How a process of its own loads each workflow; `loaded_as` remembers those that were loaded by name here."""
    targets: list[str] = []
    for workflow in workflows:
        known = next((target for one, target in loaded_as if one is workflow), None)
        targets.append(known or target_of(workflow))
    return list(dict.fromkeys(targets))
