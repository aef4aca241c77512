"""Small graphs, written short."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fuseline.model import PolicySpec, StepSchema, WorkflowSchema


def schema_of(
    edges: list[tuple[str, str, str]],
    names: list[str],
    policies: dict[str, list[PolicySpec]] | None = None,
    groups: dict[str, dict[str, list[str]]] | None = None,
    run_policies: Sequence[PolicySpec] = (),
) -> WorkflowSchema:
    """A schema of (source, action, target) edges; `policies` and OR `groups` by step."""
    successors: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    predecessors: dict[str, list[str]] = {name: [] for name in names}
    for source, action, target in edges:
        successors[source].setdefault(action, []).append(target)
        if source not in predecessors[target]:
            predecessors[target].append(source)
    steps = {
        name: StepSchema(
            name=name,
            successors=successors[name],
            predecessors=predecessors[name],
            policies=(policies or {}).get(name, []),
            or_groups=(groups or {}).get(name, {}),
        )
        for name in names
    }
    return WorkflowSchema(workflow_id="g", steps=steps, policies=list(run_policies))


def parse(
    text: str,
    policies: dict[str, list[PolicySpec]] | None = None,
    run_policies: Sequence[PolicySpec] = (),
) -> WorkflowSchema:
    """`a -> b; a -x> c[all_done]; d`: edges, the action between - and >, a trigger in brackets where first named."""
    edges, names = [], []
    found: dict[str, list[PolicySpec]] = {name: list(specs) for name, specs in (policies or {}).items()}
    for part in text.split(";"):
        words = re.findall(r"(\w+)(?:\[(\w+)\])?", re.sub(r"-\w*>", " ", part))
        actions = re.findall(r"-(\w*)>", part)
        for name, rule in words:
            if name not in names:
                names.append(name)
            if rule:
                found.setdefault(name, []).append(policy("trigger", rule=rule))
        for (source, _), action, (target, _) in zip(words, actions, words[1:], strict=False):
            edges.append((source, action or "default", target))
    return schema_of(edges, names, found, run_policies=run_policies)


def join(sources: str, target: str, rule: str, groups: dict[str, list[str]]) -> WorkflowSchema:
    """One step after several starts, a letter each."""
    return schema_of(
        [(source, "default", target) for source in sources],
        [*sources, target],
        {target: [policy("trigger", rule=rule)]},
        {target: groups},
    )


def policy(name: str, **config: Any) -> PolicySpec:
    return PolicySpec(name=name, config=config)
