"""What is asked of the system in one seed: random graphs, what their steps will do, when runs begin and are cancelled."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from fuseline.engine.rules import Rules
from fuseline.model.messages import FailureDecision, PolicyDecision
from fuseline.model.schema import PolicySpec, StepSchema, WorkflowSchema

LEASE_SECONDS = 6.0
RULES = Rules(lease_seconds=LEASE_SECONDS, sweep_seconds=12.0, max_losses=4, timeout_grace_seconds=2.0)
SCRIPTED = "Scripted"
"""The type of the error that a body fails with; nothing else makes one of it."""
ENDLESS_SECONDS = 40.0
"""A body that takes longer should be told to stop when its run ends before."""


@dataclass(frozen=True, slots=True)
class Script:
    """What a step does in one run: fails `failures` times, then ends as `state`. Seconds each time in `seconds`.

    `kills`: how many workers it takes down with it first.
    """

    state: str = "SUCCEEDED"
    failures: int = 0
    seconds: float = 0.05
    action: str | None = None
    kills: int = 0
    decision: PolicyDecision | None = None


@dataclass(slots=True)
class PlannedRun:
    """One dispatch: when, of what, and what its steps will do. `cancel_at`: seconds after the start of the seed."""

    instance_id: str
    schema: WorkflowSchema
    at: float
    scripts: dict[str, Script]
    cancel_at: float | None = None


@dataclass(slots=True)
class Workload:
    """One seed's work. `versions`: each (workflow_id, version) with its definitions, which differ in policies alone.

    `fusion_hops`: how far workers go on with chains. `tick_seconds`: by the tick of which clock bodies end, so that several
    do at once, as on a busy worker; 0: each at its own time.
    """

    versions: dict[tuple[str, str], list[WorkflowSchema]] = field(default_factory=dict)
    runs: list[PlannedRun] = field(default_factory=list)
    fusion_hops: int = 0
    tick_seconds: float = 0.0


def make_workload(random: Random, horizon_seconds: float) -> Workload:
    """Draw a workload."""
    work = Workload()
    workflow_id = "w"
    graph = _graph(random)
    work.versions[workflow_id, "1"] = _definitions(random, workflow_id, "1", graph)
    if random.random() < 0.35:
        other = _graph(random)
        work.versions[workflow_id, "2"] = _definitions(random, workflow_id, "2", other)
    if random.random() < 0.25:
        work.versions["v", "1"] = _definitions(random, "v", "1", _graph(random))
    keys = list(work.versions)
    for number in range(random.choice((1, 1, 2, 2, 3))):
        key = random.choice(keys) if number else keys[-1]
        definitions = work.versions[key]
        schema = random.choice(definitions)
        at = random.random() * horizon_seconds * 0.6
        run = PlannedRun(
            f"r{number}", schema, at, {name: _script(random, schema.steps[name]) for name in schema.steps}
        )
        is_long = any(script.seconds > ENDLESS_SECONDS for script in run.scripts.values())
        if random.random() < (0.5 if is_long else 0.12):
            run.cancel_at = at + random.random() * horizon_seconds * 0.5
        work.runs.append(run)
    work.fusion_hops = random.choice((0, 1, 3, 20, 20))
    work.tick_seconds = random.choice((0.0, 0.0, 0.05, 0.5))
    return work


_Graph = dict[str, StepSchema]


def _graph(random: Random) -> _Graph:
    """2 to 12 steps; edges lead from lower to higher numbers. One in four is a chain, which workers may go on with."""
    count = random.choice((2, 3, 4, 5, 5, 6, 6, 7, 8, 9, 12))
    names = [f"s{index}" for index in range(count)]
    before: dict[str, list[str]] = {names[0]: []}
    after: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    shape = random.random()
    for index in range(1, count):
        reach = names[:index] if shape < 0.55 else names[max(0, index - 2) : index]
        if shape > 0.75:
            reach = names[index - 1 : index]
        wanted = random.choice((0, 1, 1, 1, 2, 2, 3)) if index > 1 and shape <= 0.75 else 1
        sources = random.sample(reach, min(wanted, len(reach)))
        before[names[index]] = sources
        for source in sources:
            action = "default" if random.random() < 0.75 else random.choice(("left", "right"))
            after[source].setdefault(action, []).append(names[index])
            if random.random() < 0.05:
                after[source].setdefault("both", []).append(names[index])
    steps = {}
    for name in names:
        groups: dict[str, list[str]] = {}
        if len(before[name]) > 1 and random.random() < 0.2:
            groups["either"] = random.sample(before[name], random.randint(2, len(before[name])))
        policies = []
        if before[name] and random.random() < 0.2:
            rule = random.choice(("all_done", "one_success", "one_failed"))
            policies.append(PolicySpec.model_construct(name="trigger", config={"rule": rule}))
        steps[name] = StepSchema.model_construct(
            name=name,
            successors=after[name],
            predecessors=before[name],
            or_groups=groups,
            policies=policies,
            description=None,
        )
    return steps


def _definitions(random: Random, workflow_id: str, version: str, graph: _Graph) -> list[WorkflowSchema]:
    """One definition, or two that differ in their policies."""
    found = []
    for _ in range(1 if random.random() < 0.5 else 2):
        steps = {
            name: step.model_copy(update={"policies": step.policies + _policies(random)})
            for name, step in graph.items()
        }
        limits = []
        if random.random() < 0.1:
            limits.append(PolicySpec(name="workflow_timeout", config={"seconds": random.choice((3.0, 15.0))}))
        found.append(
            WorkflowSchema(
                workflow_id=workflow_id,
                version=version,
                steps=steps,
                outputs=list(graph)[-1:],
                policies=limits,
            )
        )
    return found


def _policies(random: Random) -> list[PolicySpec]:
    policies = []
    chance = random.random()
    if chance < 0.5:
        config: dict[str, Any] = {
            "max_retries": random.choice((2, 3, 4)),
            "wait": random.choice((0.0, 0.2, 1.0)),
        }
        if chance < 0.2:
            config |= {"backoff": 2.0, "jitter": 0.5}
        policies.append(PolicySpec.model_construct(name="retry", config=config))
    chance = random.random()
    if chance < 0.1:
        policies.append(
            PolicySpec.model_construct(name="timeout", config={"seconds": random.choice((1.5, 4.0))})
        )
    elif chance < 0.25:
        policies.append(
            PolicySpec.model_construct(name="expiry", config={"seconds": random.choice((0.5, 2.0, 6.0))})
        )
    return policies


def _script(random: Random, step: StepSchema) -> Script:
    chance = random.random()
    seconds = random.choice((0.0, 0.01, 0.05, 0.2))
    if chance < 0.12:
        seconds = random.uniform(1.0, 5.0)  # long enough for a claim
    elif chance < 0.14:
        seconds = random.uniform(6.0, 12.0)  # longer than a lease
    elif chance < 0.15:
        seconds = random.uniform(ENDLESS_SECONDS, 2 * ENDLESS_SECONDS)
    action = random.choice(list(step.successors)) if step.successors else None
    if action is not None and random.random() < 0.4:
        action = "default"
    state, failures, kills = "SUCCEEDED", 0, 0
    decision = None
    chance = random.random()
    if chance < 0.06:
        state = "FAILED"
    elif chance < 0.16:
        failures = random.choice((1, 1, 2))
    elif chance < 0.2:
        state = "SKIPPED"
    elif chance < 0.22:
        kills = random.choice((1, 2, 9))
    elif chance < 0.25:
        failures = 1
        kind = random.choice((FailureDecision.RETRY, FailureDecision.SKIP, FailureDecision.FAIL))
        decision = PolicyDecision(decision=kind, delay_seconds=0.5 if kind is FailureDecision.RETRY else 0.0)
    return Script(state, failures, seconds, action, kills, decision)
