"""`fuseline workflows`."""

from __future__ import annotations

import typer

from fuseline.cli.options import BROKER, Embedded, Json, command
from fuseline.cli.output import moment, out, print_json, short, table
from fuseline.cli.wiring import open_broker
from fuseline.settings import Settings

app = typer.Typer(add_completion=False)


@app.command()
@command(*BROKER)
def workflows(settings: Settings, embedded: Embedded = False, as_json: Json = False) -> None:
    """List the registered workflow versions, with the inputs that they take."""
    with open_broker(settings, embedded=embedded) as broker:
        found = broker.list_workflows()
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one.workflow_id,
            one.version,
            str(one.steps),
            _inputs(one.inputs_schema),
            moment(one.registered_at),
            short(one.description or "", 60),
        )
        for one in found
    ]
    out().print(table(("workflow", "version", ">steps", "inputs", "registered", "description"), rows))


def _inputs(schema: dict[str, object] | None) -> str:
    """Names of the inputs; those that may be left out in brackets."""
    properties = (schema or {}).get("properties")
    required = (schema or {}).get("required")
    if not isinstance(properties, dict):
        return ""
    needed = required if isinstance(required, list) else []
    return ", ".join(name if name in needed else f"[{name}]" for name in properties)
