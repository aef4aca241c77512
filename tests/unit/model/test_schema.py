"""A schema that exists can run: every mistake is refused, and the message names the culprit (P7)."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import ValidationError

from fuseline.errors import InvalidSchemaError
from fuseline.model import PolicySpec, StepSchema, Trigger, WorkflowSchema
from fuseline.model import schema as schema_module
from fuseline.model.schema import MAX_ID_LENGTH, check_id


def step(name: str, to: str | dict[str, list[str]] = "", after: str = "", **more: Any) -> dict[str, Any]:
    """One step; `to` and `after` name steps by letters."""
    successors = to if isinstance(to, dict) else {"default": list(to)} if to else {}
    return {"name": name, "successors": successors, "predecessors": list(after), **more}


def workflow(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"workflow_id": "w", "steps": {one["name"]: one for one in steps}, **more}


DIAMOND = workflow(
    step("a", "bc"),
    step("b", "d", "a"),
    step("c", "d", "a"),
    step(
        "d",
        "",
        "bc",
        or_groups={"p": ["b", "c"]},
        policies=[{"name": "trigger", "config": {"rule": "one_success"}}],
    ),
    outputs=["d"],
)


# ---- what is refused


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (workflow(), "workflow 'w' has no steps"),
        (workflow(step("a"), workflow_id=""), "workflow_id is empty"),
        (workflow(step("a"), workflow_id=" \t"), "workflow_id is empty"),
        (workflow(step("a"), workflow_id="a\nb"), "workflow_id 'a\\nb' has a control character"),
        (workflow(step("a"), workflow_id="\ud800"), "has a control character"),
        (workflow(step("a"), version=""), "version is empty"),
        (workflow(step("")), "step name is empty"),
        (workflow(step("é" * 61)), f"is over {MAX_ID_LENGTH} bytes long"),
        (workflow(step("a", {"": ["b"]}), step("b", "", "a")), "action of step 'a' is empty"),
        (workflow(step("a"), outputs=["b"]), "output 'b' is not a step"),
        (workflow(step("a", "x")), "successor 'x' of step 'a' is not a step"),
        (workflow(step("a"), step("b", "", "x")), "predecessor 'x' of step 'b' is not a step"),
        (workflow(step("a", "b"), step("b")), "edge 'a' -> 'b': 'b' does not list it as a predecessor"),
        (workflow(step("a"), step("b", "", "a")), "edge 'a' -> 'b': 'a' does not list it as a successor"),
        (workflow(step("a", "b"), step("b", "", "aa")), "step 'b' lists a predecessor twice"),
        (workflow(step("a", "a", "a")), "workflow 'w' has no starting step"),
        (workflow(step("a", "b", "b"), step("b", "a", "a")), "workflow 'w' has no starting step"),
        (
            workflow(
                step("s", "a"),
                step("a", "b", "sc"),
                step("b", "c", "a"),
                step("c", "ad", "b"),
                step("d", "", "c"),
            ),
            "the graph has a cycle: a -> b -> c -> a",
        ),
        (workflow(step("s", "a"), step("a", "a", "sa")), "the graph has a cycle: a -> a"),
        (
            workflow(step("a", "b"), step("b", "", "a", or_groups={"p": []})),
            "OR group 'p' of step 'b' is empty",
        ),
        (
            workflow(step("a", "b"), step("b", "", "a", or_groups={"p": ["a", "a"]})),
            "OR group 'p' of step 'b' lists a step twice",
        ),
        (
            workflow(step("a", "b"), step("b", "", "a", or_groups={"p": ["b"]})),
            "OR group 'p' of step 'b': 'b' is not a predecessor of it",
        ),
        (
            workflow(step("a", policies=[{"name": "trigger", "config": {"rule": "sometimes"}}])),
            "step 'a': trigger rule 'sometimes' is unknown (known: all_success, all_done, one_success, one_failed)",
        ),
        (
            workflow(step("a", policies=[{"name": "trigger"}])),
            "step 'a': trigger rule 'None' is unknown",
        ),
    ],
)
def test_a_definition_that_cannot_run_is_refused_and_the_culprit_named(
    definition: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  (its text is what is tested)
        WorkflowSchema(**definition)
    assert message in str(raised.value)


def test_key_and_name_of_a_step_must_agree() -> None:
    with pytest.raises(ValueError, match="step 'a' is named 'b': key and name must be equal"):
        WorkflowSchema(workflow_id="w", steps={"a": StepSchema(name="b")})


@pytest.mark.parametrize("field", ["workflow_id", "steps"])
def test_a_field_that_is_missing_is_named(field: str) -> None:
    definition = workflow(step("a"))
    del definition[field]
    with pytest.raises(ValidationError, match=field):
        WorkflowSchema(**definition)


@pytest.mark.parametrize(
    ("where", "definition"),
    [
        ("colour", workflow(step("a"), colour="red")),
        ("steps.a.colour", workflow(step("a", colour="red"))),
        ("steps.a.policies.0.colour", workflow(step("a", policies=[{"name": "x", "colour": "red"}]))),
    ],
)
def test_a_field_that_is_not_known_is_named(where: str, definition: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted") as raised:
        WorkflowSchema(**definition)
    assert ".".join(str(part) for part in raised.value.errors()[0]["loc"]) == where


def test_of_several_mistakes_the_same_one_is_named_each_time() -> None:
    """Sets of strings are in another order in each process, so the order must not come from one."""
    targets = [f"missing{n}" for n in range(50)]
    with pytest.raises(ValueError, match="successor 'missing0' of step 'a'"):
        WorkflowSchema(**workflow(step("a", {"default": targets})))
    with pytest.raises(ValueError, match="predecessor 'missing0' of step 'a'"):
        WorkflowSchema(**workflow(step("s"), {"name": "a", "predecessors": targets}))


@pytest.mark.parametrize(
    ("limit", "what"), [("MAX_STEPS", "has 4 steps, over 2"), ("MAX_EDGES", "has 4 edges, over 2")]
)
def test_a_graph_over_the_limits_is_refused(monkeypatch: pytest.MonkeyPatch, limit: str, what: str) -> None:
    monkeypatch.setattr(schema_module, limit, 2)
    with pytest.raises(ValueError, match=f"workflow 'w' {what}"):
        WorkflowSchema(**DIAMOND)


def test_a_long_cycle_is_found_soon_and_named_in_part() -> None:
    size = 20_000
    names = [f"s{n}" for n in range(size)]
    steps = [
        {"name": name, "successors": {"default": [names[(n + 1) % size]]}, "predecessors": [names[n - 1]]}
        for n, name in enumerate(names)
    ]
    steps[0]["predecessors"] = [names[-1], "start"]
    began = time.process_time()
    with pytest.raises(ValueError, match="the graph has a cycle: s") as raised:
        WorkflowSchema(**workflow({"name": "start", "successors": {"default": ["s0"]}}, *steps))
    assert time.process_time() - began < 5  # looked up in lists, it takes a minute
    assert len(str(raised.value)) < 1_000
    assert "... 19981 more ..." in str(raised.value)


def test_a_wide_or_group_is_checked_soon() -> None:
    names = [f"s{n}" for n in range(20_000)]
    last = {"name": "z", "predecessors": names, "or_groups": {"p": names}}
    steps = [{"name": name, "successors": {"default": ["z"]}} for name in names]
    began = time.process_time()
    schema = WorkflowSchema(**workflow(*steps, last))
    assert time.process_time() - began < 5
    assert schema.starting_steps() == names


# ---- ids


@pytest.mark.parametrize(
    "value", ["a", "A b", "parse[17]", "größe", "a.b-c_d/e", "日本", "x" * MAX_ID_LENGTH]
)
def test_what_can_be_an_id(value: str) -> None:
    check_id("step name", value)


@pytest.mark.parametrize("value", ["", " ", "a\x00", "a\x7f", "\udfff", "x" * (MAX_ID_LENGTH + 1), "日" * 41])
def test_what_cannot_be_an_id(value: str) -> None:
    with pytest.raises(InvalidSchemaError, match=r"^step name "):
        check_id("step name", value)


# ---- what is understood


def test_a_schema_survives_the_journey_as_data_and_as_yaml() -> None:
    schema = WorkflowSchema(
        **DIAMOND,
        version="2",
        name="n",
        description="d",
        inputs_schema={"type": "object"},
        policies=[{"name": "p"}],
    )
    assert WorkflowSchema(**schema.model_dump()) == schema
    assert WorkflowSchema.model_validate_json(schema.model_dump_json()) == schema
    assert WorkflowSchema.from_yaml(schema.to_yaml()) == schema
    assert schema.key == ("w", "2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("- a", "holds a mapping"),
        ("", "holds a mapping"),
        ("!!python/object:x {}", "not YAML"),
    ],
)
def test_yaml_that_is_no_definition_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidSchemaError, match=message):
        WorkflowSchema.from_yaml(text)


def test_what_a_definition_leaves_out_has_a_default() -> None:
    schema = WorkflowSchema(**workflow({"name": "a"}))
    assert (schema.version, schema.outputs, schema.policies, schema.inputs_schema) == ("1", [], [], None)
    assert schema.steps["a"].trigger() is Trigger.ALL_SUCCESS
    assert schema.starting_steps() == ["a"]


def test_the_last_trigger_counts() -> None:
    rules = [PolicySpec(name="trigger", config={"rule": rule}) for rule in ("all_done", "one_failed")]
    assert StepSchema(name="a", policies=rules).trigger() is Trigger.ONE_FAILED


def test_a_definition_cannot_be_changed() -> None:
    schema = WorkflowSchema(**DIAMOND)
    with pytest.raises(ValidationError, match="frozen"):
        schema.version = "2"  # type: ignore[misc]


# ---- the first difference


def changed(**steps: dict[str, Any] | None) -> WorkflowSchema:
    found = {**DIAMOND["steps"], **steps}
    return WorkflowSchema(
        **{**DIAMOND, "steps": {name: one for name, one in found.items() if one is not None}}
    )


TRIGGER = DIAMOND["steps"]["d"]["policies"]
GROUP = {"p": ["b", "c"]}


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (changed(e=step("e")), "step 'e' was added"),
        (
            changed(b=None, a=step("a", "c"), d=step("d", "", "c", policies=TRIGGER)),
            "step 'b' was removed",
        ),
        (
            changed(
                b=None, e=step("e", "d", "a"), a=step("a", "ec"), d=step("d", "", "ec", policies=TRIGGER)
            ),
            "step 'b' was removed",
        ),
        (
            changed(a=step("a", {"default": ["b"], "left": ["c"]})),
            "successors of step 'a' changed",
        ),
        (
            changed(d=step("d", "", "bc", or_groups={"q": ["b", "c"]}, policies=TRIGGER)),
            "OR groups of step 'd' changed",
        ),
        (
            changed(d=step("d", "", "bc", or_groups={"p": ["b"]}, policies=TRIGGER)),
            "OR groups of step 'd' changed",
        ),
        (
            changed(d=step("d", "", "bc", or_groups=GROUP)),
            "trigger of step 'd' changed from one_success to all_success",
        ),
        (WorkflowSchema(**{**DIAMOND, "outputs": ["b"]}), "outputs changed from ['d'] to ['b']"),
        (WorkflowSchema(**{**DIAMOND, "version": "2"}), "w 1 is not w 2"),
        (WorkflowSchema(**{**DIAMOND, "workflow_id": "v"}), "w 1 is not v 1"),
    ],
)
def test_what_would_break_runs_of_a_version_is_its_first_difference(
    other: WorkflowSchema, difference: str
) -> None:
    assert WorkflowSchema(**DIAMOND).first_difference(other) == difference


def test_where_only_a_target_moves_the_source_is_named_first() -> None:
    before = WorkflowSchema(**workflow(step("z"), step("a", "c"), step("b"), step("c", "", "a")))
    after = WorkflowSchema(**workflow(step("z"), step("a"), step("b", "c"), step("c", "", "b")))
    assert before.first_difference(after) == "successors of step 'a' changed"
    first = WorkflowSchema(**workflow(step("c", "", "a"), step("a", "c"), step("b")))
    assert first.first_difference(after.model_copy(update={"steps": {n: after.steps[n] for n in "cab"}})) == (
        "predecessors of step 'c' changed"
    )


@pytest.mark.parametrize(
    "other",
    [
        WorkflowSchema(**DIAMOND),
        changed(a=step("a", "cb", description="new")),
        changed(b=step("b", "d", "a", policies=[{"name": "retry", "config": {"max_retries": 9}}])),
        changed(d=step("d", "", "cb", or_groups={"p": ["c", "b"]}, policies=TRIGGER)),
        WorkflowSchema(
            **DIAMOND, policies=[{"name": "workflow_timeout", "config": {"seconds": 9}}], name="n"
        ),
        WorkflowSchema(**DIAMOND, inputs_schema={"type": "object"}),
    ],
)
def test_what_may_change_under_a_version_is_no_difference(other: WorkflowSchema) -> None:
    assert WorkflowSchema(**DIAMOND).first_difference(other) is None


def test_the_first_difference_is_the_same_in_every_process() -> None:
    before = WorkflowSchema(**workflow(*(step(f"s{n}") for n in range(40))))
    after = WorkflowSchema(**workflow(*(step(f"t{n}") for n in range(40))))
    assert before.first_difference(after) == "step 's0' was removed"
