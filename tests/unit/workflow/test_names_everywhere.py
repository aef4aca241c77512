"""Names are the same in every process: a script that dispatches, the worker that imports it, a worker's processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FLOW = """
import multiprocessing
import a_users
from fuseline import Depends, Workflow, step

@step
def load() -> str:
    return "flow"

def make(text):
    @step
    def work(a: str = Depends(load), b: str = Depends(a_users.load)) -> str:
        return text
    return work

flow = Workflow(outputs=[make("first"), make("second")])

def say_names():
    print(*flow.to_schema().steps, flush=True)

if __name__ == "__main__":
    say_names()
    child = multiprocessing.get_context("spawn").Process(target=say_names)
    child.start()
    child.join()
"""
USERS = """
from fuseline import step

@step
def load() -> str:
    return "users"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "flow.py").write_text(FLOW)
    (tmp_path / "a_users.py").write_text(USERS)
    return tmp_path


def test_a_script_names_its_steps_as_those_do_who_import_it(place: Path) -> None:
    def said(*arguments: str) -> list[str]:
        run = subprocess.run(
            [sys.executable, *arguments], cwd=place, capture_output=True, text=True, check=True, timeout=60
        )
        return run.stdout.splitlines()

    (imported,) = said("-c", "import flow; flow.say_names()")
    assert set(imported.split()) == {"load", "flow_load", "work", "work_2"}
    assert said("flow.py") == [imported, imported]
    assert said("-m", "flow") == [imported, imported]
