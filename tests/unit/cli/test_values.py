"""P7: inputs from the command line are read as a person means them, and a bad one is named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from fuseline.cli.failing import UsageError
from fuseline.cli.values import read_inputs
from fuseline.model import StepSchema, WorkflowSchema


def schema(**properties: Any) -> WorkflowSchema:
    return WorkflowSchema(
        workflow_id="w",
        steps={"a": StepSchema(name="a")},
        inputs_schema={"type": "object", "properties": properties},
    )


@pytest.mark.parametrize(
    ("pair", "key", "value"),
    [
        ("n=3", "n", 3),
        ("n=3.5", "n", 3.5),
        ("flag=true", "flag", True),
        ("nothing=null", "nothing", None),
        ('list=[1, "b"]', "list", [1, "b"]),
        ("url=file:///a.html", "url", "file:///a.html"),
        ("equation=a=b", "equation", "a=b"),
        ("text=", "text", ""),
        ('quoted="3"', "quoted", "3"),
        ("n:=3", "n", 3),
        ('object:={"a": 1}', "object", {"a": 1}),
        ("line=a\nb", "line", "a\nb"),
    ],
)
def test_a_value_is_json_if_it_can_be_else_text(pair: str, key: str, value: object) -> None:
    assert read_inputs(schema(), [pair], None, None) == {key: value}


def test_what_the_workflow_wants_as_text_stays_text() -> None:
    assert read_inputs(schema(version={"type": "string"}), ["version=1"], None, None) == {"version": "1"}


@pytest.mark.parametrize("pair", ["novalue", "=3", ":=3", " =x"])
def test_what_is_no_pair_is_named(pair: str) -> None:
    with pytest.raises(UsageError, match="is not key=value or key:=json"):
        read_inputs(schema(), [pair], None, None)


def test_an_input_given_twice_is_refused() -> None:
    """P7: neither of the two is dropped in silence."""
    with pytest.raises(UsageError, match="input 'x' is given twice"):
        read_inputs(schema(), ["x=1", "y=2", "x:=3"], None, None)


def test_an_explicit_json_value_must_be_json() -> None:
    with pytest.raises(UsageError, match="input 'n' is not JSON"):
        read_inputs(schema(), ["n:=three"], None, None)


@pytest.mark.parametrize(
    ("name", "text"),
    [("in.json", '{"a": 1, "b": 2}'), ("in.yaml", "a: 1\nb: 2\n"), ("in.txt", "{a: 1, b: 2}")],
)
def test_pairs_win_over_the_object_and_that_over_the_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    given = read_inputs(schema(), ["b=4"], '{"b": 3, "c": 3}', str(tmp_path / name))
    assert given == {"a": 1, "b": 4, "c": 3}


def test_a_dash_is_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"a": 1}'))
    assert read_inputs(schema(), [], None, "-") == {"a": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "is not JSON"),
        ("a.json", "[1]", "holds list, not an object"),
        ("a.yaml", "a: [", "is neither JSON nor YAML"),
        ("a.yaml", "just text", "holds str, not an object"),
        ("a.yaml", "1: 2", "holds dict, not an object of inputs by name"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_inputs(schema(), [], None, str(tmp_path / name))
    assert name in str(caught.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"--inputs-file gone\.yaml: .*No such file"):
        read_inputs(schema(), [], None, "gone.yaml")


def test_an_empty_file_has_no_inputs(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert read_inputs(schema(), [], None, str(tmp_path / "empty.yaml")) == {}
