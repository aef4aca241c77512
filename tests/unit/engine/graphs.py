"""Random graphs and what becomes of their steps, read off a tape of bytes.

A tape makes an example one draw: generating is quick, and zeros mean the simplest choice, so that Hypothesis shrinks a
failure to a small graph and a dull run. A tape that is used up reads as zeros.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from fuseline.model import PolicySpec, Status, StepSchema, Trigger, WorkflowSchema

EXAMPLES = int(os.environ.get("FUSELINE_EXAMPLES", "0"))
"""Examples a property for a long run; 0: each property's own number."""

RUN_SECONDS = 5_000.0
T = TypeVar("T")


class Tape:
    """Choices, one byte each."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    @property
    def is_over(self) -> bool:
        return self._at >= len(self._content)

    def below(self, limit: int) -> int:
        """A number in range(limit); 0 once the tape is over."""
        if self.is_over or limit <= 1:
            return 0
        self._at += 1
        return self._content[self._at - 1] % limit

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def one_in(self, chances: int) -> bool:
        return self.below(chances) == chances - 1


@dataclass(frozen=True)
class Script:
    """What a step does, however often it is asked: fail so often (an attempt each), then end like this."""

    failures: int = 0
    status: Status = Status.SUCCEEDED
    action: str | None = None
    result: Any = None


@dataclass(frozen=True)
class Graph:
    schema: WorkflowSchema
    scripts: dict[str, Script] = field(default_factory=dict)


@dataclass(frozen=True)
class Kinds:
    """What may occur in a graph."""

    or_groups: bool = True
    triggers: bool = True
    failures: bool = True
    policies: bool = True
    max_size: int = 9


def read_graph(tape: Tape, kinds: Kinds) -> Graph:
    """A graph that is valid by construction: edges lead from lower to higher numbers."""
    size = 1 + tape.below(kinds.max_size)
    names = [f"s{n}" for n in range(size)]
    density = 2 + tape.below(3)
    successors: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    predecessors: dict[str, list[str]] = {name: [] for name in names}
    for n, target in enumerate(names):
        for source in names[:n]:
            if tape.one_in(density):
                predecessors[target].append(source)
                for action in tape.pick(
                    (("default",), ("default",), ("default",), ("left",), ("right",), ("default", "left"))
                ):
                    successors[source].setdefault(action, []).append(target)
    steps = {
        name: StepSchema(
            name=name,
            successors=successors[name],
            predecessors=predecessors[name],
            or_groups=_groups(tape, predecessors[name]) if kinds.or_groups else {},
            policies=_policies(tape, kinds),
        )
        for name in names
    }
    deadline = [PolicySpec(name="workflow_timeout", config={"seconds": RUN_SECONDS})]
    schema = WorkflowSchema(workflow_id="g", steps=steps, policies=deadline if kinds.policies else [])
    return Graph(schema, {name: _script(tape, step, kinds) for name, step in steps.items()})


def tell(graph: Graph) -> Graph:
    """Have Hypothesis print the graph with a failure."""
    for name, step in graph.schema.steps.items():
        rules = [policy.config for policy in step.policies]
        note(
            f"{name} after {step.predecessors} {step.or_groups}, then {step.successors} {rules}: {graph.scripts[name]}"
        )
    return graph


def _groups(tape: Tape, sources: list[str]) -> dict[str, list[str]]:
    found = {}
    for param in ("p", "q"):
        if sources and tape.one_in(2):
            members = [source for source in sources if tape.below(2)]
            if members:
                found[param] = members
    return found


def _policies(tape: Tape, kinds: Kinds) -> list[PolicySpec]:
    found = []
    if kinds.triggers and tape.one_in(3):
        found.append(PolicySpec(name="trigger", config={"rule": tape.pick(list(Trigger)).value}))
    if kinds.policies and tape.one_in(3):
        found.append(
            PolicySpec(name="retry", config={"max_retries": 2 + tape.below(2), "wait": tape.pick((0.0, 7.0))})
        )
    if kinds.policies and tape.one_in(4):
        found.append(PolicySpec(name="timeout", config={"seconds": tape.pick((10.0, 30.0))}))
    if kinds.policies and tape.one_in(4):
        found.append(PolicySpec(name="expiry", config={"seconds": 40.0}))
    return found


def _script(tape: Tape, step: StepSchema, kinds: Kinds) -> Script:
    failures = tape.pick((0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 99)) if kinds.failures else 0
    status = tape.pick((Status.SUCCEEDED, Status.SUCCEEDED, Status.SUCCEEDED, Status.SKIPPED))
    word = tape.pick((None, *step.successors, "elsewhere"))
    explicit = tape.below(2) == 1
    return Script(failures, status, word if explicit else None, None if explicit else word)


def tapes(examples: int, length: int) -> Callable[[Callable[[Tape], None]], Callable[[], None]]:
    """Decorate a property of one tape: `examples` of them, or as many as FUSELINE_EXAMPLES says."""

    def decorate(prove: Callable[[Tape], None]) -> Callable[[], None]:
        @settings(max_examples=EXAMPLES or examples)
        @given(content=st.binary(min_size=length, max_size=length))
        def prove_it(content: bytes) -> None:
            prove(Tape(content))

        prove_it.__name__, prove_it.__doc__ = prove.__name__, prove.__doc__
        # A failure takes time to be made small.
        timed: Callable[[], None] = pytest.mark.timeout(0 if EXAMPLES else 300)(prove_it)
        return timed

    return decorate
