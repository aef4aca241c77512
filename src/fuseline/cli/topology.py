"""`fuseline topology`: what is declared on RabbitMQ."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fuseline.amqp.definitions import definitions
from fuseline.amqp.resources import Finding, Resource, Verdict
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import Topology
from fuseline.cli.failing import ExitCode, UsageError
from fuseline.cli.options import Json, command
from fuseline.cli.output import out, print_json, table
from fuseline.cli.wiring import amqp_urls, topology_of
from fuseline.settings import Settings
from fuseline.worker.loader import load

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Apply, verify and export what is declared on RabbitMQ."
)

_STYLES = {Finding.OK: "green", Finding.MISSING: "red", Finding.DIFFERS: "red", Finding.UNKNOWN: "yellow"}

Versions = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="WORKFLOW",
        help="Also what these need: module:workflow, or id@version. (A coordinator declares it by itself.)",
        show_default=False,
    ),
]


@app.command()
@command("amqp_url", "prefix", "queue_type", "call_seconds")
def apply(settings: Settings, workflows: Versions = None, as_json: Json = False) -> None:
    """Declare all exchanges, queues and bindings. What is there already stays as it is."""
    resources = resources_of(topology_of(settings), versions_of(workflows))
    with _link(settings) as link:
        link.declare(resources, deadline_seconds=settings.call_seconds)
    if as_json:
        print_json({"declared": [str(one) for one in resources]})
    else:
        out().print(f"{len(resources)} exchanges, queues and bindings are there")


@app.command()
@command("amqp_url", "prefix", "queue_type", "call_seconds")
def verify(settings: Settings, workflows: Versions = None, as_json: Json = False) -> None:
    """Compare RabbitMQ with what should be there, changing nothing. Exit code 1 when something is missing or differs."""
    resources = resources_of(topology_of(settings), versions_of(workflows))
    with _link(settings) as link:
        verdicts = link.verify(resources, deadline_seconds=settings.call_seconds)
    if as_json:
        print_json(
            [{"resource": str(v.resource), "finding": v.finding, "detail": v.detail} for v in verdicts]
        )
    else:
        out().print(table(("what", "finding", "detail"), [_row(verdict) for verdict in verdicts]))
    if any(verdict.finding in (Finding.MISSING, Finding.DIFFERS) for verdict in verdicts):
        raise typer.Exit(ExitCode.FAILED)


@app.command()
@command("prefix", "queue_type")
def export(
    settings: Settings,
    workflows: Versions = None,
    policies: Annotated[
        bool, typer.Option("--policies", help="Only the policies, which an operator may change any time.")
    ] = False,
    vhost: Annotated[str, typer.Option("--vhost", metavar="NAME", help="The virtual host.")] = "/",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there, not to stdout.")
    ] = None,
) -> None:
    """Write RabbitMQ's definitions as JSON: exchanges, queues, policies, and an account for each role.

    For `rabbitmqctl import_definitions`. The accounts have no passwords.
    """
    made = definitions(topology_of(settings), workflows=versions_of(workflows), virtual_host=vhost)
    if policies:
        made = {"policies": made["policies"]}
    text = json.dumps(made, indent=2) + "\n"
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror}") from error


def resources_of(topology: Topology, versions: list[tuple[str, str]]) -> list[Resource]:
    """What every installation has, and what these workflow versions add, each once."""
    resources = topology.base_resources()
    for workflow_id, version in versions:
        resources += [
            one for one in topology.workflow_resources(workflow_id, version) if one not in resources
        ]
    return resources


def versions_of(texts: list[str] | None) -> list[tuple[str, str]]:
    """(workflow_id, version) of each `module:workflow` or `id@version`."""
    found: list[tuple[str, str]] = []
    for text in texts or []:
        workflow_id, at, version = text.rpartition("@")
        if at and workflow_id and version:
            found.append((workflow_id, version))
        elif ":" in text:
            found += [workflow.to_schema().key for workflow in load(text)]
        else:
            raise UsageError(f"workflow {text!r} is neither module:workflow nor id@version")
    return found


def _link(settings: Settings) -> BackgroundLink:
    return BackgroundLink(amqp_urls(settings), name=f"fuseline topology {os.getpid()}")


def _row(verdict: Verdict) -> tuple[str, Text, str]:
    return str(verdict.resource), Text(verdict.finding.value, _STYLES[verdict.finding]), verdict.detail
