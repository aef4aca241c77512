"""Random workflows and what their steps do in a run, all drawn from one seed."""

from __future__ import annotations

from random import Random
from typing import Any

from fuseline.model.schema import PolicySpec, StepSchema, WorkflowSchema

WORKFLOWS = 8
CONDITION = "conditions"
"""What a definition's description says first, before the names of the steps that have a condition."""


def draw_workflows(seed: int, count: int = WORKFLOWS) -> list[WorkflowSchema]:
    """The workflows of a seed: the same in every process that asks."""
    return [_draw_workflow(Random(f"{seed}/{number}"), f"graph{number}") for number in range(count)]


def conditioned(schema: WorkflowSchema) -> set[str]:
    """The steps whose own condition may skip them."""
    words = (schema.description or "").split()
    return set(words[1:]) if words[:1] == [CONDITION] else set()


def _draw_workflow(random: Random, workflow_id: str) -> WorkflowSchema:
    """2 to 9 steps; edges lead from lower to higher numbers."""
    names = [f"s{number}" for number in range(random.choice((2, 3, 4, 5, 6, 7, 9)))]
    before: dict[str, list[str]] = {name: [] for name in names}
    after: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    for number in range(1, len(names)):
        name = names[number]
        wanted = random.choice((0, 1, 1, 1, 2, 2, 3)) if number > 1 else 1
        before[name] = sorted(random.sample(names[:number], min(wanted, number)))
        for source in before[name]:
            action = "default" if random.random() < 0.75 else random.choice(("left", "right"))
            after[source].setdefault(action, []).append(name)
    steps: dict[str, StepSchema] = {}
    conditions = []
    for name in names:
        groups = {}
        policies = _policies(random)
        if len(before[name]) > 1 and random.random() < 0.3:
            groups["either"] = sorted(random.sample(before[name], random.randint(2, len(before[name]))))
        if before[name] and random.random() < 0.2:
            rule = random.choice(("all_done", "one_success", "one_failed"))
            policies.append(PolicySpec(name="trigger", config={"rule": rule}))
        elif before[name] and not groups and random.random() < 0.25:
            conditions.append(name)
        steps[name] = StepSchema(
            name=name,
            successors=after[name],
            predecessors=before[name],
            or_groups=groups,
            policies=policies,
        )
    limits = []
    if random.random() < 0.15:
        limits.append(PolicySpec(name="workflow_timeout", config={"seconds": 45.0}))
    return WorkflowSchema(
        workflow_id=workflow_id,
        steps=steps,
        outputs=names[-1:],
        policies=limits,
        description=" ".join([CONDITION, *conditions]),
    )


def _policies(random: Random) -> list[PolicySpec]:
    policies = []
    if random.random() < 0.5:
        config: dict[str, Any] = {
            "max_retries": random.choice((2, 3)),
            "wait": random.choice((0.0, 0.2, 1.0)),
        }
        if random.random() < 0.4:
            config |= {"backoff": 2.0, "jitter": 0.5}
        policies.append(PolicySpec(name="retry", config=config))
    chance = random.random()
    if chance < 0.2:
        policies.append(PolicySpec(name="timeout", config={"seconds": random.choice((1.5, 4.0))}))
    elif chance < 0.3:
        policies.append(PolicySpec(name="expiry", config={"seconds": random.choice((5.0, 20.0))}))
    return policies


def draw_scripts(random: Random, schema: WorkflowSchema) -> dict[str, dict[str, Any]]:
    """What each step does in one run: `seconds`, `failures` (attempts that fail at first), `state`, `action`, `skips`."""
    return {name: _script(random, step) for name, step in schema.steps.items()}


def _script(random: Random, step: StepSchema) -> dict[str, Any]:
    chance = random.random()
    seconds = random.choice((0.0, 0.0, 0.01, 0.05, 0.2))
    if chance < 0.12:
        seconds = random.uniform(1.0, 4.0)
    elif chance < 0.16:
        seconds = random.uniform(5.0, 9.0)
    elif chance < 0.175:
        seconds = random.uniform(10.0, 20.0)
    script: dict[str, Any] = {"seconds": round(seconds, 3)}
    chance = random.random()
    if chance < 0.04:
        script["state"] = "FAILED"
    elif chance < 0.18:
        script["failures"] = random.choice((1, 1, 2))
    if step.successors and random.random() < 0.6:
        action = random.choice(list(step.successors))
        if action != "default":
            script["action"] = action
    targets = [target for _, target in step.edges_out()]
    if targets and random.random() < 0.1:
        script["skips"] = [random.choice(targets)]
    return script
