"""Edges: drawn ones, those that `Depends` means, and what the schema says of both."""

from __future__ import annotations

from typing import Any

import pytest

from fuseline import Branch, Depends, InvalidSchemaError, RunFailed, Step, StepSchema, Workflow, step
from fuseline.model import RunView, Status


def make(name: str) -> Step:
    @step(name=name)
    def body() -> str:
        return name

    return body


def schema_of(*outputs: Step) -> dict[str, StepSchema]:
    return Workflow(outputs=list(outputs)).to_schema().steps


def test_a_shifted_to_b_is_an_edge_and_returns_b() -> None:
    a, b, c = make("a"), make("b"), make("c")
    assert a >> b >> c is c
    steps = schema_of(c)
    assert steps["a"].successors == {"default": ["b"]}
    assert steps["b"].predecessors == ["a"]
    assert steps["c"].predecessors == ["b"]


def test_next_is_an_edge_of_an_action_and_returns_the_step() -> None:
    a, b, c = make("a"), make("b"), make("c")
    assert a.next(b) is b
    assert a.next(c, action="later") is c
    assert schema_of(b, c)["a"].successors == {"default": ["b"], "later": ["c"]}
    assert a.edges_out == (("default", b), ("later", c))
    assert c.edges_in == ((a, "later"),)


def test_a_minus_an_action_shifted_to_b_is_an_edge_of_that_action_and_returns_b() -> None:
    a, b = make("a"), make("b")
    assert (a - "retry_later") >> b is b
    assert schema_of(b)["a"].successors == {"retry_later": ["b"]}


def test_an_edge_drawn_twice_is_one() -> None:
    a, b = make("a"), make("b")
    a >> b
    a >> b
    assert schema_of(b)["a"].successors == {"default": ["b"]}


@step
def judge(score: int) -> Any:
    if score < 0:
        return Branch("refuse", {"score": score})
    return "reject" if score < 10 else score


@step
def accept(score: int = Depends(judge)) -> str:
    return f"accepted {score}"


@step
def reject(reason: str = Depends(judge)) -> str:
    return f"rejected: {reason}"


@step
def refuse(reason: dict[str, int] = Depends(judge)) -> str:
    return f"refused: {reason['score']}"


judge >> accept
(judge - "reject") >> reject
(judge - "refuse") >> refuse


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (30, ["accepted 30", None, None]),
        (3, [None, "rejected: reject", None]),
        (-1, [None, None, "refused: -1"]),
    ],
)
def test_a_branch_or_a_string_that_names_an_action_chooses_the_edges(score: int, expected: list[Any]) -> None:
    assert Workflow(outputs=[accept, reject, refuse]).run({"score": score}) == expected


def test_an_action_edge_stands_in_place_of_the_default_one_that_depends_means() -> None:
    steps = schema_of(accept, reject, refuse)
    assert steps["judge"].successors == {"default": ["accept"], "reject": ["reject"], "refuse": ["refuse"]}
    assert steps["reject"].predecessors == ["judge"]
    assert steps["reject"].or_groups == {}


def test_both_are_taken_when_both_are_drawn() -> None:
    @step
    def route(action: str) -> str:
        return action

    @step
    def target(value: str = Depends(route)) -> str:
        return value

    route >> target
    (route - "special") >> target
    workflow = Workflow(outputs=[target])
    assert workflow.to_schema().steps["route"].successors == {"default": ["target"], "special": ["target"]}
    assert workflow.run({"action": "special"}) == "special"
    assert workflow.run({"action": "other"}) == "other"


def test_a_string_that_names_no_action_is_a_value() -> None:
    @step
    def source() -> str:
        return "reject"

    @step
    def target(text: str = Depends(source)) -> str:
        return text

    assert Workflow(outputs=[target]).run() == "reject"


def test_an_untaken_branch_is_skipped_and_rejoins() -> None:
    @step
    def join(
        a: str | None = Depends(accept), b: str | None = Depends(reject), c: Any = Depends(refuse)
    ) -> list[Any]:
        return [a, b, c]

    assert Workflow(outputs=[join]).run({"score": 3}) == [None, "rejected: reject", None]


def test_a_drawn_edge_without_depends_is_a_requirement_of_its_own() -> None:
    calls: list[str] = []

    @step
    def first() -> None:
        calls.append("first")

    @step
    def second() -> None:
        calls.append("second")

    @step
    def source() -> int:
        return 1

    @step
    def last(n: int = Depends(source)) -> int:
        calls.append("last")
        return n

    first >> second >> last
    workflow = Workflow(outputs=[last])
    assert workflow.to_schema().steps["last"].predecessors == ["source", "second"]
    assert workflow.run() == 1
    assert calls == ["first", "second", "last"]


def test_a_step_that_is_needed_alone_and_in_a_group_is_a_group_of_one_as_well() -> None:
    a, b = make("a"), make("b")

    @step
    def target(x: str = Depends(a, b), y: str = Depends(a)) -> str:
        return x + y

    schema = schema_of(target)["target"]
    assert schema.or_groups == {"x": ["a", "b"], "y": ["a"]}
    assert schema.predecessors == ["a", "b"]
    assert Workflow(outputs=[target]).run() in ("aa", "ba")


def test_a_drawn_edge_to_a_member_of_a_group_says_only_which_action_leads_there() -> None:
    a, b = make("a"), make("b")

    @step
    def target(x: str = Depends(a, b)) -> str:
        return x

    a >> target
    (b - "go") >> target
    steps = schema_of(target)
    assert steps["target"].or_groups == {"x": ["a", "b"]}
    assert steps["b"].successors == {"go": ["target"]}
    assert Workflow(outputs=[target]).run() == "a"


def test_steps_are_found_from_outputs_backwards_and_from_any_step_forwards_along_edges() -> None:
    a, b, c, d = (make(name) for name in "abcd")
    beside = make("beside")

    @step
    def dependent(value: str = Depends(a)) -> str:
        return value

    b >> dependent  # backwards along a drawn edge
    a >> c >> d  # forwards from a step that was found backwards
    beside >> d  # and backwards again
    workflow = Workflow(outputs=[dependent])
    assert set(workflow.steps) == {"a", "b", "c", "d", "beside", "dependent"}
    names = list(workflow.steps)
    assert names.index("a") < names.index("c") < names.index("d")


def test_edges_that_are_drawn_later_belong_to_workflows_that_are_made_later() -> None:
    a, b = make("a"), make("b")
    before = Workflow(outputs=[a])
    a >> b
    assert set(before.steps) == {"a"}
    assert before.to_schema().steps["a"].successors == {}
    assert set(Workflow(outputs=[a]).steps) == {"a", "b"}


def test_what_cannot_be_an_edge_is_refused_where_it_is_drawn() -> None:
    a, b = make("a"), make("b")

    class Kind(Step):
        def run_step(self) -> None: ...

    with pytest.raises(TypeError, match=r"an edge leads to a step.*make an instance of a class"):
        a >> Kind  # type: ignore[type-var]  # what a user does by mistake
    with pytest.raises(TypeError, match="decorate a function with @step"):
        a >> print  # type: ignore[type-var]  # what a user does by mistake
    with pytest.raises(InvalidSchemaError, match="action is empty"):
        a.next(b, action=" ")
    with pytest.raises(InvalidSchemaError, match="action is empty"):
        a - ""
    with pytest.raises(TypeError):
        a - 3  # type: ignore[operator]  # what a user does by mistake
    with pytest.raises(TypeError, match="the action of a Branch is a string"):
        Branch(3)  # type: ignore[arg-type]  # what a user does by mistake
    assert a.edges_out == ()


def test_a_cycle_is_refused_with_the_steps_on_it() -> None:
    start, a, b = make("start"), make("a"), make("b")
    start >> a >> b
    (b - "again") >> a
    with pytest.raises(InvalidSchemaError, match="the graph has a cycle: a -> b -> a"):
        Workflow(outputs=[b])


def test_a_branch_to_an_action_without_edges_ends_there() -> None:
    @step
    def source() -> Branch:
        return Branch("nowhere", 1)

    @step
    def target(n: int = Depends(source)) -> int:
        return n

    assert Workflow(outputs=[source, target]).run() == [1, None]


def test_a_failed_requirement_cancels_what_requires_it() -> None:
    @step
    def source() -> int:
        raise ValueError("of no use")

    @step
    def target(n: int = Depends(source)) -> int:
        return n

    with pytest.raises(RunFailed) as caught:
        Workflow(outputs=[target]).run()
    assert isinstance(caught.value.run, RunView)
    assert caught.value.run.steps["target"].state is Status.CANCELLED
