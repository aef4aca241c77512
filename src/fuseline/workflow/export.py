"""Workflows as text: YAML for machines, Mermaid for eyes."""

from __future__ import annotations

from pathlib import Path

from fuseline.model.schema import DEFAULT_ACTION, StepSchema, WorkflowSchema


def export_yaml(schema: WorkflowSchema, path: str | Path) -> None:
    """Write `schema.to_yaml()` to a file."""
    Path(path).write_text(schema.to_yaml(), encoding="utf-8")


def to_mermaid(schema: WorkflowSchema) -> str:
    """A flowchart: outputs are rounded, actions are labels, and the edges of an OR group are dotted."""
    ids = {name: f"s{index}" for index, name in enumerate(schema.steps)}
    lines = ["flowchart TD"]
    for name in schema.steps:
        opening, closing = ("([", "])") if name in schema.outputs else ("[", "]")
        lines.append(f'    {ids[name]}{opening}"{_escaped(name)}"{closing}')
    for name, step in schema.steps.items():
        for action, target in step.edges_out():
            arrow = "-.->" if _is_alternative(name, schema.steps[target]) else "-->"
            label = "" if action == DEFAULT_ACTION else f'|"{_escaped(action)}"|'
            lines.append(f"    {ids[name]} {arrow}{label} {ids[target]}")
    return "\n".join(lines) + "\n"


def _is_alternative(source: str, target: StepSchema) -> bool:
    return any(source in members and len(members) > 1 for members in target.or_groups.values())


def _escaped(text: str) -> str:
    for character, entity in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;")):
        text = text.replace(character, entity)
    return text
