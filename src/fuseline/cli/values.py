"""What people type: a run's inputs (`key=value`, `key:=json`, an object, a file), a time span (`30d`)."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from fuseline.cli.failing import UsageError
from fuseline.model import WorkflowSchema

_SPAN = re.compile(r"(?P<count>\d+(?:\.\d+)?)(?P<unit>[smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_PAIR = re.compile(r"(?P<key>[^=:\s][^=:]*)(?P<how>:?=)(?P<value>.*)", re.DOTALL)


def read_span(option: str, text: str) -> float:
    """Seconds from `45s`, `30m`, `12h`, `30d` or `2w`. Raises `UsageError`."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{option} {text}: a number with s, m, h, d or w behind it, such as 30d")
    return float(found["count"]) * _SECONDS[found["unit"]]


def read_inputs(
    schema: WorkflowSchema, pairs: Iterable[str], text: str | None, file: str | None
) -> dict[str, Any]:
    """All inputs together: a file's, then `text`'s (a JSON object), then the pairs'; the later one wins.

    Raises `UsageError` naming what cannot be read.
    """
    inputs: dict[str, Any] = {}
    if file is not None:
        inputs |= _from_file(file)
    if text is not None:
        inputs |= _object(_json("--inputs", text), "--inputs")
    given: dict[str, Any] = {}
    for pair in pairs:
        key, value = _from_pair(schema, pair)
        if key in given:
            raise UsageError(f"input {key!r} is given twice")
        given[key] = value
    return inputs | given


def _from_pair(schema: WorkflowSchema, pair: str) -> tuple[str, Any]:
    found = _PAIR.fullmatch(pair)
    if found is None:
        raise UsageError(f"input {pair!r} is not key=value or key:=json")
    key, value = found["key"].strip(), found["value"]
    if found["how"] == ":=":
        return key, _json(f"input {key!r}", value)
    if _is_text(schema, key):
        return key, value
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _is_text(schema: WorkflowSchema, key: str) -> bool:
    """Whether the workflow wants a string there, so that `version=1` is the text "1" and no number."""
    wanted = ((schema.inputs_schema or {}).get("properties") or {}).get(key)
    return isinstance(wanted, dict) and wanted.get("type") == "string"


def _from_file(name: str) -> dict[str, Any]:
    """A JSON or YAML file; `-` is stdin. YAML reads JSON as well."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--inputs-file {name}: {error}") from error
    if name.endswith(".json"):
        return _object(_json(f"--inputs-file {name}", text), f"--inputs-file {name}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--inputs-file {name} is neither JSON nor YAML: {error}") from error
    return _object({} if value is None else value, f"--inputs-file {name}")


def _json(what: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{what} is not JSON: {error}") from error


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UsageError(f"{what} holds {type(value).__name__}, not an object of inputs by name")
    return value
