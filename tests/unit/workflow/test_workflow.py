"""`Workflow`: its definition as data, as text, as a picture, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fuseline import (
    Depends,
    InvalidInputsError,
    InvalidSchemaError,
    PolicyError,
    RetryPolicy,
    Step,
    StepPolicy,
    Workflow,
    WorkflowSchema,
    WorkflowTimeoutPolicy,
    step,
    workflow_from_functions,
)
from fuseline.errors import UnknownStepError
from fuseline.model import PolicySpec, StepSchema
from fuseline.workflow.depends import StepLike


@step
def judge(score: int) -> int:
    """Say how good it is.

    Not shown.
    """
    return score


@step(policies=[RetryPolicy(2)])
def accept(score: int = Depends(judge)) -> str:
    return f"accepted {score}"


@step
def reject(score: int = Depends(judge)) -> str:
    return f"rejected {score}"


judge >> accept
(judge - 'no "way"') >> reject


@step
def tell(text: str = Depends(accept, reject), limit: int = 3) -> str:
    return text[:limit]


review = Workflow(
    outputs=[tell],
    workflow_id="review",
    version="2",
    policies=[WorkflowTimeoutPolicy(60)],
    name="Review",
    description="Of a score",
)


def test_the_definition_is_data() -> None:
    assert review.to_schema().model_dump() == {
        "workflow_id": "review",
        "version": "2",
        "name": "Review",
        "description": "Of a score",
        "outputs": ["tell"],
        "policies": [{"name": "workflow_timeout", "config": {"seconds": 60}}],
        "inputs_schema": {
            "type": "object",
            "properties": {"score": {"type": "integer"}, "limit": {"type": "integer", "default": 3}},
            "required": ["score"],
            "additionalProperties": False,
        },
        "steps": {
            "judge": {
                "name": "judge",
                "successors": {"default": ["accept"], 'no "way"': ["reject"]},
                "predecessors": [],
                "or_groups": {},
                "policies": [],
                "description": "Say how good it is.",
            },
            "accept": {
                "name": "accept",
                "successors": {"default": ["tell"]},
                "predecessors": ["judge"],
                "or_groups": {},
                "policies": [
                    {
                        "name": "retry",
                        "config": {
                            "max_retries": 2,
                            "wait": 0.0,
                            "backoff": 1.0,
                            "jitter": 0.0,
                            "retry_on": [],
                            "no_retry_on": [],
                        },
                    }
                ],
                "description": None,
            },
            "reject": {
                "name": "reject",
                "successors": {"default": ["tell"]},
                "predecessors": ["judge"],
                "or_groups": {},
                "policies": [],
                "description": None,
            },
            "tell": {
                "name": "tell",
                "successors": {},
                "predecessors": ["accept", "reject"],
                "or_groups": {"text": ["accept", "reject"]},
                "policies": [],
                "description": None,
            },
        },
    }
    assert review.to_schema() is review.to_schema()
    assert repr(review) == "<Workflow review 2: 4 steps>"
    assert (review.workflow_id, review.version, review.outputs) == ("review", "2", ("tell",))
    assert review.steps["judge"] is judge


def test_export_writes_the_text_of_to_yaml_which_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "review.yaml"
    review.export(path)
    assert path.read_text(encoding="utf-8") == review.to_schema().to_yaml()
    assert WorkflowSchema.from_yaml(path.read_text(encoding="utf-8")) == review.to_schema()


def test_to_mermaid_draws_outputs_round_actions_as_labels_and_groups_dotted() -> None:
    assert review.to_mermaid() == (
        "flowchart TD\n"
        '    s0["judge"]\n'
        '    s1["accept"]\n'
        '    s2["reject"]\n'
        '    s3(["tell"])\n'
        "    s0 --> s1\n"
        '    s0 -->|"no #quot;way#quot;"| s2\n'
        "    s1 -.-> s3\n"
        "    s2 -.-> s3\n"
    )


def test_to_workflow_turns_a_schema_back_given_the_steps() -> None:
    schema = WorkflowSchema.from_yaml(review.to_schema().to_yaml())
    back = schema.to_workflow({"judge": judge, "accept": accept, "reject": reject, "tell": tell})
    assert back.to_schema() == schema
    assert back.run({"score": 3}) == "acc"
    assert back.policies == (WorkflowTimeoutPolicy(60),)


def test_to_workflow_takes_what_a_workflow_has_made_of_functions_and_classes() -> None:
    def source() -> int:
        return 1

    class Double(Step):
        def run_step(self, n: int = Depends(source)) -> int:
            return 2 * n

    workflow = workflow_from_functions(outputs=[Double])
    schema = workflow.to_schema()
    given: list[Mapping[str, StepLike]] = [
        workflow.steps,
        {"source": source, "double": Double},
        {"source": source, "double": Double()},
    ]
    for steps in given:
        assert schema.to_workflow(steps).run() == 2


def test_to_workflow_has_edges_and_policies_of_the_schema() -> None:
    text = """
    workflow_id: written
    outputs: [join]
    steps:
      a: {name: a, successors: {default: [join]}, policies: [{name: retry, config: {max_retries: 4}}]}
      b: {name: b, successors: {default: [join]}}
      join: {name: join, predecessors: [a, b], or_groups: {value: [a, b]}}
    """

    @step(policies=[])
    def a() -> str:
        return "a"

    async def b() -> str:
        return "b"

    def join(value: str) -> str:
        return value

    workflow = WorkflowSchema.from_yaml(text).to_workflow({"a": a, "b": b, "join": join})
    assert workflow.run() in ("a", "b")
    assert workflow.to_schema().steps["a"].policies[0].config["max_retries"] == 4
    assert workflow.to_schema().inputs_schema == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }


def two_steps(**more: Any) -> WorkflowSchema:
    return WorkflowSchema(
        workflow_id="two",
        steps={"a": StepSchema(name="a", **more), "b": StepSchema(name="b")},
        outputs=["a"],
    )


def test_to_workflow_says_which_step_is_missing_too_many_or_not_connected() -> None:
    def a() -> int:
        return 1

    def b(n: int = Depends(a)) -> int:
        return n

    with pytest.raises(InvalidSchemaError, match="workflow 'two': no step is given for 'b'"):
        two_steps().to_workflow({"a": a})
    with pytest.raises(InvalidSchemaError, match="workflow 'two' has no step 'c'"):
        two_steps().to_workflow({"a": a, "b": a, "c": a})
    with pytest.raises(
        InvalidSchemaError, match=r"step 'b': parameter 'n' depends on .* has no edge from there"
    ):
        two_steps().to_workflow({"a": a, "b": b})
    with pytest.raises(TypeError, match="step 'b': 3 is no step"):
        two_steps().to_workflow({"a": a, "b": 3})  # type: ignore[dict-item]  # what a user does by mistake
    with pytest.raises(PolicyError, match="no policy is registered as 'unheard of'"):
        two_steps(policies=[PolicySpec(name="unheard of")]).to_workflow({"a": a, "b": a})
    with pytest.raises(PolicyError, match=r"step 'a': .* is not a StepPolicy"):
        two_steps(policies=[PolicySpec(name="workflow_timeout", config={"seconds": 1})]).to_workflow(
            {"a": a, "b": a}
        )


def test_without_an_id_it_is_made_of_the_name_or_of_the_outputs() -> None:
    def first() -> int:
        return 1

    def second() -> int:
        return 2

    assert Workflow(outputs=[first], name="My Workflow").workflow_id == "my_workflow"
    assert Workflow(outputs=[first, second]).workflow_id == "first-second"
    assert Workflow(first).workflow_id == "first"
    many = [step(name=f"output_{index:03}")(lambda: 1) for index in range(40)]
    ids = {Workflow(outputs=many[:count]).workflow_id for count in (38, 39, 40)}
    assert len(ids) == 3
    assert all(len(one) <= 120 for one in ids)


def test_an_output_that_is_named_twice_is_one() -> None:
    assert Workflow(outputs=[judge, judge]).outputs == ("judge",)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"workflow_id": "a\nb"}, "workflow_id 'a\\\\nb' has a control character"),
        ({"version": ""}, "version is empty"),
        ({"version": 2}, "version: Input should be a valid string"),
    ],
)
def test_a_wrong_definition_is_refused_when_the_workflow_is_made(
    options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidSchemaError, match=problem):
        Workflow(outputs=[judge], **options)


def test_a_step_is_found_by_its_name_with_or_without_an_index() -> None:
    assert review.bound_step("tell").step is tell
    assert review.bound_step("tell[17]").step is tell
    with pytest.raises(UnknownStepError, match="workflow 'review' 2 has no step 'told'"):
        review.bound_step("told")


class OneDispatch:
    """A broker as far as dispatching needs one."""

    def __init__(self) -> None:
        self.dispatched: list[tuple[WorkflowSchema, dict[str, Any] | None]] = []

    def dispatch_workflow(self, workflow: WorkflowSchema, inputs: dict[str, Any] | None = None) -> str:
        self.dispatched.append((workflow, inputs))
        return "run 1"


def test_dispatch_validates_against_the_schema_and_hands_over_to_the_broker() -> None:
    broker = OneDispatch()
    assert review.dispatch(broker, {"score": 3}) == "run 1"
    assert broker.dispatched == [(review.to_schema(), {"score": 3})]
    for inputs, problem in (
        ({"score": "3"}, "'score'"),
        ({}, "score"),
        (None, "score"),
        ({"score": 3, "limt": 1}, "limt"),
        ({"score": 3, "limit": float("nan")}, "'limit'"),
    ):
        with pytest.raises(InvalidInputsError, match=problem):
            review.dispatch(broker, inputs)
    assert len(broker.dispatched) == 1


def test_dispatch_makes_json_of_what_has_a_json_form() -> None:
    broker = OneDispatch()

    @step
    def read(path: Path) -> str:
        return path.name

    Workflow(outputs=[read]).dispatch(broker, {"path": Path("a/b")})
    assert broker.dispatched[0][1] == {"path": "a/b"}


def test_workflow_from_functions_builds_a_workflow_from_plain_functions_with_depends_defaults() -> None:
    def one() -> int:
        return 1

    async def two(n: int = Depends(one)) -> int:
        return n + 1

    class Noop(StepPolicy):
        name = "test_workflow_noop"

    workflow = workflow_from_functions(
        outputs=[one, two], workflow_id="w", version="3", policies=[Noop()], name="n", description="d"
    )
    assert workflow.run() == [1, 2]
    schema = workflow.to_schema()
    assert (schema.workflow_id, schema.version, schema.name, schema.description) == ("w", "3", "n", "d")
    assert set(schema.steps) == {"one", "two"}
