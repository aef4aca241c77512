"""A graph of steps drawn as a tree: each step once, under the predecessor that it waits for longest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fuseline.model import WorkflowSchema

MAX_DEPTH = 12
"""Deeper steps are drawn as if they were this deep: a chain of a hundred is not to be pushed off the screen."""


def as_tree(names: Sequence[str], schema: WorkflowSchema | None) -> Iterator[tuple[str, str]]:
    """(what is drawn before it, name) of each step, parents before children; without a schema a plain list.

    Steps that the schema does not have (indexed ones, say) come last.
    """
    if schema is None:
        yield from (("", name) for name in names)
        return
    children = _children(schema)
    # Each entry: name, whether it is the last of its siblings, and what its line begins with.
    waiting = [(name, "", "") for name in reversed(children[None])]
    drawn: set[str] = set()
    while waiting:
        name, before, below = waiting.pop()
        drawn.add(name)
        yield before, name
        under = children.get(name, [])
        deep = len(below) >= 3 * MAX_DEPTH
        for position, child in reversed(list(enumerate(under))):
            last = position == len(under) - 1
            waiting.append(
                (
                    child,
                    below + ("└─ " if last else "├─ "),
                    below if deep else below + ("   " if last else "│  "),
                )
            )
    yield from (("", name) for name in names if name not in drawn)


def _children(schema: WorkflowSchema) -> Mapping[str | None, list[str]]:
    """The steps drawn under each step; under None the starting steps."""
    depths: dict[str, int] = {}
    parents: dict[str, str | None] = {}
    missing = {name: len(step.predecessors) for name, step in schema.steps.items()}
    ready = [name for name, count in missing.items() if count == 0]
    for name in ready:  # grows meanwhile
        step = schema.steps[name]
        parent = max(step.predecessors, key=lambda one: depths[one], default=None)
        parents[name] = parent
        depths[name] = 0 if parent is None else depths[parent] + 1
        for target in dict.fromkeys(target for _, target in step.edges_out()):
            missing[target] -= 1
            if missing[target] == 0:
                ready.append(target)
    children: dict[str | None, list[str]] = {None: []}
    for name in schema.steps:  # in the schema's order
        children.setdefault(parents[name], []).append(name)
    return children
