"""The tree of a graph draws every step once, whatever the graph is like."""

from __future__ import annotations

from fuseline.cli.graph import MAX_DEPTH, as_tree
from fuseline.model import StepSchema, WorkflowSchema


def graph(**edges: list[str]) -> WorkflowSchema:
    names = list(edges)
    return WorkflowSchema(
        workflow_id="w",
        steps={
            name: StepSchema(
                name=name,
                successors={"default": edges[name]} if edges[name] else {},
                predecessors=[other for other in names if name in edges[other]],
            )
            for name in names
        },
    )


def drawn(schema: WorkflowSchema, names: list[str] | None = None) -> list[str]:
    return [guides + name for guides, name in as_tree(names or list(schema.steps), schema)]


def test_a_step_hangs_under_the_predecessor_that_it_waits_for_longest() -> None:
    assert drawn(graph(a=["b", "c", "d"], b=["d"], c=[], d=["e"], e=[])) == [
        "a",
        "├─ b",
        "│  └─ d",
        "│     └─ e",
        "└─ c",
    ]


def test_several_starting_steps_stand_side_by_side() -> None:
    assert drawn(graph(a=["c"], b=["c"], c=[])) == ["a", "└─ c", "b"]


def test_steps_that_the_schema_does_not_have_come_last() -> None:
    assert drawn(graph(a=[]), ["a", "parse[1]"]) == ["a", "parse[1]"]


def test_without_a_schema_it_is_a_list() -> None:
    assert list(as_tree(["b", "a"], None)) == [("", "b"), ("", "a")]


def test_a_long_chain_is_not_pushed_off_the_screen() -> None:
    names = [f"s{i}" for i in range(200)]
    lines = drawn(graph(**{name: names[i + 1 : i + 2] for i, name in enumerate(names)}))
    assert [line.split()[-1] for line in lines] == names
    assert max(map(len, lines)) <= 3 * (MAX_DEPTH + 1) + 4
