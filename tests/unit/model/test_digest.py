"""A definition's digest, and definitions that are recognised by it."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import weakref
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from fuseline.model import PolicySpec, StepSchema, WorkflowSchema
from fuseline.model import schema as schema_module
from fuseline.model.digest import digest_of
from fuseline.model.recognised import Definition, recognised, recognised_text
from fuseline.testing.flows import graph


def plain(**more: Any) -> dict[str, Any]:
    """As it comes out of JSON; a workflow of its own for each test."""
    return graph("digests", {"a": ["b", "c"], "b": ["d"], "c": ["d"]}, **more).model_dump(mode="json")


def test_it_stays_what_it_is_from_release_to_release() -> None:
    """Dispatchers and coordinators of two releases work together: another digest would have every definition sent again."""
    schema = graph("orders", {"a": ["b"]}, policies={"a": [PolicySpec(name="retry", config={"wait": 0.5})]})
    assert schema.digest == "a94e7d58d3021544fc290145b59bebe4510e917ab727e43937a390dd1a97f5c3"


def test_it_is_of_what_is_sent() -> None:
    assert WorkflowSchema(**plain()).digest == digest_of(plain())


def test_the_order_of_steps_is_no_part_of_it() -> None:
    turned = plain()
    turned["steps"] = dict(reversed(turned["steps"].items()))
    assert list(turned["steps"]) != list(plain()["steps"])
    assert digest_of(turned) == digest_of(plain())


@pytest.mark.parametrize(
    "changed",
    [
        {"version": "2"},
        {"outputs": ["d"]},
        {"policies": {"a": [PolicySpec(name="retry")]}},
        {"inputs_schema": {"type": "object"}},
    ],
)
def test_whatever_is_changed_changes_it(changed: dict[str, Any]) -> None:
    assert digest_of(plain(**changed)) != digest_of(plain())


def test_it_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = WorkflowSchema(**plain())
    first = schema.digest
    monkeypatch.setattr(schema_module, "digest_of", None)
    assert schema.digest is first


def test_a_changed_copy_has_a_digest_of_its_own() -> None:
    schema = WorkflowSchema(**plain())
    assert schema.digest
    other = schema.model_copy(update={"description": "another"})
    assert other.digest == digest_of(plain() | {"description": "another"})
    for same in (copy.copy(schema), copy.deepcopy(schema), pickle.loads(pickle.dumps(schema))):
        assert same == schema
        assert same.digest == schema.digest


def test_what_says_the_same_is_one_object_while_somebody_uses_it() -> None:
    first = recognised(plain())
    assert recognised(plain()) is first
    assert recognised(plain(outputs=["b"])) is not first
    assert first == WorkflowSchema(**plain())


def test_a_text_that_was_read_before_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: storage is asked again and again for a definition, however many steps it has."""
    text = json.dumps(plain())
    first = recognised_text(text)
    assert first == WorkflowSchema(**plain())
    assert recognised_text(json.dumps(plain(outputs=["b"]))) != first
    monkeypatch.setattr(json, "loads", None)
    assert recognised_text(text) is first


def test_a_text_and_a_message_that_say_the_same_are_one_object() -> None:
    sent = recognised(plain())
    assert recognised_text(json.dumps(plain(), indent=1)) is sent


def test_nothing_is_kept_that_nobody_uses() -> None:
    """P6."""
    found = weakref.ref(recognised(plain(version="9")))
    read = weakref.ref(recognised_text(json.dumps(plain(version="10"))))
    gc.collect()
    assert found() is None
    assert read() is None


def test_fields_of_messages_are_recognised_too() -> None:
    class Message(BaseModel):
        one: Definition
        more: list[Definition]

    message = Message.model_validate({"one": plain(), "more": [plain(), plain()]})
    assert message.one is message.more[0] is message.more[1]
    given = WorkflowSchema(**plain())
    assert Message(one=given, more=[]).one is given


@pytest.mark.parametrize(
    ("wrong", "place", "said"),
    [
        ({"steps": {}}, (), "workflow 'digests' has no steps"),
        ({"colour": "red"}, ("colour",), "Extra inputs are not permitted"),
        ({"colour": {1, 2}}, ("colour",), "Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_said_as_ever(wrong: dict[str, Any], place: tuple[str, ...], said: str) -> None:
    """P7; also when a definition that is right is in use, and when it is no JSON at all."""
    right = recognised(plain())
    for _ in range(2):
        with pytest.raises(ValidationError) as raised:
            recognised(plain() | wrong)
        first = raised.value.errors()[0]
        assert (first["loc"], said in first["msg"]) == (place, True)
    assert recognised(plain()) is right


def test_steps_that_are_made_already_are_taken_as_they_are() -> None:
    step = StepSchema(name="a")
    assert recognised({"workflow_id": "w", "steps": {"a": step}}).steps["a"] is step
