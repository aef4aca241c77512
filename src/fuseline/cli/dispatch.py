"""`fuseline dispatch`: begin a run, and perhaps watch it."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from fuseline.broker.base import Broker
from fuseline.cli.failing import ExitCode, UsageError
from fuseline.cli.options import BROKER, Json, command
from fuseline.cli.output import err, print_json
from fuseline.cli.values import read_inputs
from fuseline.cli.watch import watch_run
from fuseline.cli.wiring import open_broker
from fuseline.model import RunStatus, WorkflowSchema
from fuseline.model.inputs import validate_inputs
from fuseline.settings import Settings
from fuseline.worker.loader import load

app = typer.Typer(add_completion=False)

_MODULE = re.compile(r"(?:[^:]+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_][\w.]*")


@app.command()
@command(*BROKER)
def dispatch(
    settings: Settings,
    workflow: Annotated[
        str,
        typer.Argument(
            metavar="WORKFLOW",
            help="module:workflow, file.py:workflow, or the id of a registered one (id, id@version).",
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Inputs. A value is JSON if it can be read as such, else text; KEY:=VALUE has to be JSON.",
            show_default=False,
        ),
    ] = None,
    inputs_json: Annotated[
        str | None, typer.Option("--inputs", metavar="JSON", help="All inputs as one JSON object.")
    ] = None,
    inputs_file: Annotated[
        str | None,
        typer.Option("--inputs-file", metavar="FILE", help="Inputs from a JSON or YAML file; - is stdin."),
    ] = None,
    registered: Annotated[
        bool, typer.Option("--registered", help="WORKFLOW is a registered id, whatever it looks like.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Watch the run on stderr; exit code 1 when it does not succeed.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, metavar="SECONDS", help="How long --wait waits.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Begin a run and print its instance id.

    The inputs are checked against the workflow's input schema before anything is sent.
    """
    if timeout is not None and not wait:
        raise UsageError("--timeout goes with --wait")
    from_code = None if registered or not _MODULE.fullmatch(workflow) else _load_one(workflow)
    with open_broker(settings) as broker:
        schema = from_code or _registered(broker, workflow)
        values = validate_inputs(schema, read_inputs(schema, inputs or [], inputs_json, inputs_file))
        instance_id = broker.dispatch_workflow(schema, values)
        if not as_json:
            # At once, so that it is known even if the watching is interrupted.
            typer.echo(instance_id)
        if not wait:
            if as_json:
                print_json(
                    {"instance_id": instance_id, "workflow_id": schema.workflow_id, "version": schema.version}
                )
            return
        if as_json:
            run = broker.wait(instance_id, timeout)
            print_json(run)
        else:
            run = watch_run(broker, instance_id, err(), timeout_seconds=timeout)
    if run.state is not RunStatus.SUCCEEDED:
        raise typer.Exit(ExitCode.FAILED)


def _load_one(target: str) -> WorkflowSchema:
    workflows = load(target)
    if len(workflows) != 1:
        raise UsageError(f"{target} holds {len(workflows)} workflows; name one of them")
    return workflows[0].to_schema()


def _registered(broker: Broker, text: str) -> WorkflowSchema:
    """`id` is the version registered last, `id@version` that one."""
    workflow_id, at, version = text.rpartition("@")
    return broker.get_workflow(workflow_id, version) if at and workflow_id else broker.get_workflow(text)
