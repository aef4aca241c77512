"""What is deployed calls commands that exist, with options that they have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from fuseline.cli.main import app
from fuseline.worker.loader import load
from tests.docs.pages import ROOT
from tests.docs.test_commands import parse

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "deploy/docker/compose.yaml").read_text())["services"]
OURS = {name: service for name, service in SERVICES.items() if service.get("image") == "fuseline"}


def examples() -> dict[str, str]:
    """The values of the worker's example, with every `#` taken away."""
    text = (ROOT / "deploy" / "systemd" / "worker.env.example").read_text()
    return dict(re.findall(r"^#?([A-Z_]+)=(.*)$", text, re.MULTILINE))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_calls_a_command_that_exists(unit: Path) -> None:
    (line,) = re.findall(r"^ExecStart=/opt/fuseline/bin/fuseline (.*)$", unit.read_text(), re.MULTILINE)
    words = re.sub(r"\$([A-Z_]+)", lambda found: examples()[found[1]], line).split()
    parse(typer.main.get_command(app), "fuseline", words)


@pytest.mark.parametrize("name", OURS)
def test_a_service_calls_a_command_that_exists(name: str) -> None:
    service = OURS[name]
    if name == "dispatch":
        assert service["entrypoint"] == ["fuseline", "dispatch"]
        words = ["dispatch", "workflows.hello:hello", "name=Ada", "--wait"]
    else:
        words = service["command"]
    parse(typer.main.get_command(app), "fuseline", words)


def test_the_image_checks_itself_with_a_command_that_exists() -> None:
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    assert 'CMD ["fuseline", "doctor"]' in dockerfile
    parse(typer.main.get_command(app), "fuseline", ["doctor"])


def test_the_workflow_that_comes_along_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the container has it: the folder `workflows` is a package."""
    monkeypatch.syspath_prepend(str(ROOT / "deploy" / "docker"))
    (workflow,) = load("workflows.hello:hello")
    assert workflow.run({"name": "Ada"}) == "HELLO, ADA"
