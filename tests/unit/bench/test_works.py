"""The works are what they say they are, for the floor and for Fuseline alike."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from fuseline.bench.failing import BenchRefusedError
from fuseline.bench.flows import inputs, workflows
from fuseline.bench.graphs import Graph, RandomGraph, Role, fails_first
from fuseline.bench.works import PAYLOAD, RANDOM_GRAPHS, RANDOM_STEPS, WORKS, Shape, Work, chosen
from fuseline.model import RunStatus, Status
from fuseline.storage import MemoryRuntimeStorage


def order(graph: Graph) -> list[int]:
    """The steps in an order in which they can be executed."""
    waits = list(graph.requires)
    ready, done = [step for step, count in enumerate(waits) if not count], []
    while ready:
        step = ready.pop()
        done.append(step)
        for following in graph.successors[step]:
            waits[following] -= 1
            if not waits[following]:
                ready.append(following)
    return done


@pytest.mark.parametrize("name", ["W1", "W2", "W3-1000", "W4", "W5"])
def test_a_graph_is_executed_to_its_end_from_its_first_step(name: str) -> None:
    for run in range(RANDOM_GRAPHS):
        graph = WORKS[name].graph(run)
        assert [step for step, count in enumerate(graph.requires) if not count] == [0]
        assert sorted(order(graph)) == list(range(len(graph)))


def test_the_works_are_as_large_as_they_say() -> None:
    assert {name: work.steps for name, work in WORKS.items() if name != "W5"} == {
        "W1": 5_000,
        "W2": 400,
        "W3-1000": 1_002,
        "W3-10000": 10_002,
        "W4": 10_000,
    }
    assert 150 < len(json.dumps(PAYLOAD)) < 250


def test_random_graphs_have_branches_and_joins_and_are_the_same_each_time() -> None:
    for seed in range(RANDOM_GRAPHS):
        nodes = RandomGraph(RANDOM_STEPS, seed).nodes
        assert nodes == RandomGraph(RANDOM_STEPS, seed).nodes
        assert len(nodes) == RANDOM_STEPS
        assert any(node.role is Role.CHOOSES for node in nodes)
        assert any(len(node.reads) > 1 for node in nodes if node.role is Role.PLAIN)


def test_one_first_attempt_in_twenty_fails() -> None:
    failing = sum(fails_first(run, step) for run in range(200) for step in range(RANDOM_STEPS))
    assert 0.04 < failing / (200 * RANDOM_STEPS) < 0.06


@pytest.mark.parametrize(
    "work", chosen(["W1", "W2", "W3-1000", "W4", "W5"], 0.02), ids=lambda work: work.name
)
def test_the_workflows_execute_as_many_steps_as_the_floor(work: Work) -> None:
    """Else their figures could not be compared."""
    for number, flow in enumerate(workflows(work)):
        storage = MemoryRuntimeStorage()
        flow.run(inputs(work, number, PAYLOAD), storage=storage)
        (row,) = storage.list_runs()
        run = storage.read_run(row.instance_id)
        assert run is not None
        assert run.run.status is RunStatus.SUCCEEDED
        done = [step for step in run.steps.values() if step.status is Status.SUCCEEDED]
        assert len(done) == len(work.graph(number))
        if work.shape is Shape.RANDOM:
            again = {step.name for step in done if step.attempt == 2}
            failing = {f"step_{step}" for step in range(work.size) if fails_first(number, step)}
            assert again == failing & {step.name for step in done}
            assert any(step.status is Status.SKIPPED for step in run.steps.values())


def test_what_is_asked_for_must_be_there() -> None:
    with pytest.raises(BenchRefusedError, match="W9"):
        chosen(["W1", "W9"], 1)
    for scale in (0, -1, 1.5, float("nan")):
        with pytest.raises(BenchRefusedError, match="scale"):
            chosen([], scale)
    assert [work.name for work in chosen(["W4", "W1"], 1)] == ["W1", "W4"]


@pytest.mark.parametrize("work", WORKS.values(), ids=str)
def test_a_work_survives_its_way_to_another_process(work: Work) -> None:
    assert Work.from_json(json.loads(json.dumps(asdict(work)))) == work
