#!/usr/bin/env python3
"""Writes what is made from the code: tables in the documentation, the environment file, RabbitMQ's definitions.

    python scripts/generate.py            write all of it
    python scripts/generate.py --check    write nothing; end with 1 when something is out of date

In a page, what stands between `<!-- generated: NAME -->` and `<!-- end of generated -->` is written anew.
`tests/docs/test_generated.py` fails when somebody forgot.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import typer.main

from fuseline.amqp.definitions import Role, default_accounts, definitions, rights
from fuseline.amqp.topology import Topology
from fuseline.broker.memory import MemoryBroker
from fuseline.cli.main import app
from fuseline.errors import ERRORS_BY_CODE, CallerError, FatalError, FuselineError, RetryableError
from fuseline.settings import Settings
from fuseline.web import create_app

ROOT = Path(__file__).parents[1]
END = "<!-- end of generated -->"
_REGION = re.compile(
    rf"(?P<begin><!-- generated: (?P<name>[a-z-]+) -->\n)(?P<body>.*?)(?P<end>{END})", re.DOTALL
)
_FAMILIES: dict[type[FuselineError], str] = {
    CallerError: "the call is wrong",
    RetryableError: "ask again later",
    FatalError: "an operator has to do something",
}


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def first_sentence(text: str | None) -> str:
    """The first sentence of a docstring, on one line."""
    return re.split(r"(?<=[.!?])\s", " ".join((text or "").split()))[0].rstrip(".")


# ---- settings


def _kind(annotation: Any, metadata: list[Any]) -> str:
    """What may be given, in words."""
    choices = [repr(one).strip("'") for one in get_args(annotation) if isinstance(one, str)]
    if choices:
        return ", ".join(f"`{one}`" for one in choices)
    names = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
    kind = next((name for one, name in names.items() if annotation is one or one in get_args(annotation)), "")
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [
        f"{sign} {getattr(one, key)}" for one in metadata for key, sign in signs.items() if hasattr(one, key)
    ]
    return ", ".join([kind, *bounds])


def _default(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def settings_table() -> str:
    """All settings of `Settings`."""
    rows = [
        [
            f"`FUSELINE_{name.upper()}`",
            _kind(field.annotation, field.metadata),
            f"`{_default(field.default)}`" if field.default is not None else "none",
            field.description or "",
        ]
        for name, field in Settings.model_fields.items()
    ]
    return table(["variable", "value", "default", "what it is"], rows)


_WITHOUT_DEFAULT = {"http_url": "http://127.0.0.1:8080"}


def environment_file() -> str:
    """The environment file for systemd, with every setting."""
    lines = [
        "# /etc/fuseline/fuseline.env, read by all of Fuseline's units: what is the same for all of them, and no secret.",
        "# Addresses with passwords belong into coordinator.env, http.env and worker-NAME.env, so that a worker has neither",
        "# the database's nor the coordinator's. Each line shows the default.",
    ]
    for name, field in Settings.model_fields.items():
        kind = _kind(field.annotation, field.metadata).replace("`", "")
        value = _default(field.default) or _WITHOUT_DEFAULT[name]
        lines += ["", f"# {field.description} ({kind})", f"#FUSELINE_{name.upper()}={value}"]
    return "\n".join(lines) + "\n"


# ---- errors


def error_table() -> str:
    """Every code that can come in an answer."""
    rows = [
        [f"`{code}`", family, first_sentence(error.__doc__)]
        for base, family in _FAMILIES.items()
        for code, error in ERRORS_BY_CODE.items()
        if issubclass(error, base) and error is not base and error.__module__ == "fuseline.errors"
    ]
    return table(["code", "what to do", "what happened"], rows)


# ---- the command line


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(name, command) of `command` and all below it, as the command line itself finds them."""
    yield name, command
    if hasattr(command, "list_commands"):
        context = command.make_context(name, [], resilient_parsing=True)
        for child in command.list_commands(context):
            _, found, _ = command.resolve_command(context, [child])
            yield from _commands(found, f"{name} {child}")


def _plain(text: str | None) -> str:
    """Help text on one line, without rich's markup."""
    unmarked = re.sub(r"(?<!\\)\[/?[a-z ]*\]", "", text or "").replace("\\[", "[")
    return " ".join(unmarked.split())


def _parameter_row(parameter: Any, context: Any) -> list[str]:
    """As `--help` says it."""
    names, told = parameter.get_help_record(context)
    return [f"`{names.strip('[]')}`", _plain(told)]


def command_reference() -> str:
    """Every command with its arguments and options; those that all have are told once."""
    parts = []
    for name, command in _commands(typer.main.get_command(app), "fuseline"):
        text = [_plain(part) for part in re.split(r"\n\s*\n", command.help or "")]
        context = command.make_context(name, [], resilient_parsing=True)
        parameters = [p for p in command.params if not p.hidden and "completion" not in p.name]
        own = [p for p in parameters if p.name not in COMMON]
        common = [p.opts[0] for p in parameters if p.name in COMMON]
        parts.append(f"{'#' * (1 + len(name.split()))} {name}\n")
        parts += [f"{one}\n" for one in text if one]
        if own:
            parts.append(table(["", ""], [_parameter_row(one, context) for one in own]))
        if common:
            parts.append(f"[Common options](#common-options): {', '.join(f'`{one}`' for one in common)}.\n")
    return "\n" + "\n".join(parts) + "\n"


COMMON = frozenset(
    {
        *Settings.model_fields,
        "debug",
    }
)


# ---- HTTP


def _answers(responses: dict[str, Any]) -> str:
    """The statuses that say more than "fine, here it is"."""
    return ", ".join(f"`{status}`" for status in responses)


def _asks(operation: dict[str, Any], models: dict[str, Any]) -> str:
    """What goes into the query and the body; `?` marks what may be left out."""

    def listed(names: dict[str, bool]) -> str:
        return ", ".join(f"`{name}`{'' if required else '?'}" for name, required in names.items())

    query = {
        one["name"]: one.get("required", False)
        for one in operation.get("parameters", [])
        if one["in"] == "query"
    }
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    model = models.get(content.get("schema", {}).get("$ref", "").rpartition("/")[2], {})
    body = {name: name in model.get("required", []) for name in model.get("properties", {})}
    parts = [f"query: {listed(query)}"] if query else []
    return "; ".join(parts + ([f"body: {listed(body)}"] if body else []))


def http_routes() -> str:
    """Every route of the service."""
    document = create_app(MemoryBroker()).openapi()
    models = document["components"]["schemas"]
    rows = [
        [
            f"`{method.upper()} {path.replace(':path', '')}`",
            first_sentence(operation.get("description")),
            _asks(operation, models),
            _answers(operation["responses"]),
        ]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    return table(["request", "what it does", "takes", "answers"], rows)


# ---- RabbitMQ


_ROLES: dict[StrEnum, str] = {
    Role.DEPLOYER: "declares the topology, and may do everything under the prefix",
    Role.COORDINATOR: "the same, and answers requests (`amq.default`: direct reply-to)",
    Role.WORKER: "takes steps, reports, claims, beats, asks what a worker may ask; declares nothing",
    Role.DISPATCHER: "sends commands: dispatches, cancels, looks",
    Role.SERVICE: "the HTTP service: what dispatchers and workers may, and watches events",
    Role.OBSERVER: "watches events through queues of its own",
}


def roles_list() -> str:
    """Each role with its patterns, in blocks: the patterns have `|` in them, which tables cannot hold everywhere."""
    parts = []
    for account in default_accounts(Topology()):
        granted = rights(Topology(), account)
        patterns = "".join(f"{name:<9}  {value}\n" for name, value in granted._asdict().items())
        parts.append(f"**{account.role}** {_ROLES[account.role]}\n\n```text\n{patterns}```\n")
    return "\n" + "\n".join(parts) + "\n"


def definitions_file() -> str:
    """What RabbitMQ imports: exchanges, queues, bindings, policies, users without passwords, and their rights."""
    return json.dumps(definitions(Topology()), indent=2) + "\n"


REGIONS: dict[str, Callable[[], str]] = {
    "commands": command_reference,
    "error-codes": error_table,
    "http-routes": http_routes,
    "rabbitmq-roles": roles_list,
    "settings": settings_table,
}
FILES: dict[str, Callable[[], str]] = {
    "deploy/rabbitmq/definitions.json": definitions_file,
    "deploy/systemd/fuseline.env.example": environment_file,
}


def with_regions(text: str) -> str:
    """A page with its generated parts written anew. Raises `KeyError` for one that is not known here."""
    return _REGION.sub(lambda found: f"{found['begin']}{REGIONS[found['name']]()}{found['end']}", text)


def wanted() -> dict[Path, str]:
    """{file: what it should hold} of everything that is made from the code."""
    files = {ROOT / name: make() for name, make in FILES.items()}
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    files |= {
        page: with_regions(page.read_text()) for page in pages if "<!-- generated: " in page.read_text()
    }
    return files


def outdated() -> list[Path]:
    """The files that differ from what the code says."""
    return [path for path, text in wanted().items() if not path.exists() or path.read_text() != text]


def main(arguments: list[str]) -> int:
    """Write, or with `--check` only look."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    found, texts = outdated(), wanted()
    for path in found:
        print(path.relative_to(ROOT))
        if not arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path])
    return 1 if arguments and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
