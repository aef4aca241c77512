"""`module:attribute`: each part that can be wrong has its own message (P7)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuseline.errors import LoadError
from fuseline.worker.loader import load
from fuseline.worker.sources import target_of, targets_of
from fuseline.workflow import Workflow, step
from tests.unit.worker import flows

FLOW = """
from fuseline.workflow import Workflow, step

@step
def one() -> int:
    return 1

flow = Workflow(outputs=[one], workflow_id="from a file", version="1")
"""


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_module_attribute_is_a_workflow_or_a_list_of_them() -> None:
    assert load("tests.unit.worker.flows:flow") == [flows.flow]
    assert load("tests.unit.worker.flows:both") == [flows.flow]


def test_the_current_directory_is_importable(here: Path) -> None:
    (here / "shop_flows.py").write_text(FLOW)
    assert [one.workflow_id for one in load("shop_flows:flow")] == ["from a file"]


def test_a_file_is_loaded_once_and_finds_its_neighbours(here: Path) -> None:
    folder = here / "folder"
    folder.mkdir()
    (folder / "neighbour_of_flow.py").write_text(FLOW)
    (folder / "main_flow.py").write_text("from neighbour_of_flow import flow\n")
    (first,) = load("folder/main_flow.py:flow")
    (second,) = load(str(folder / "main_flow.py") + ":flow")
    assert first is second


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("flows", "expected module:attribute"),
        (":flow", "expected module:attribute"),
        ("flows:", "expected module:attribute"),
        ("no_such_package.flows:flow", "there is no module 'no_such_package'"),
        ("tests.unit.worker.flow:flow", "there is no module 'tests.unit.worker.flow'"),
        ("no/such/file.py:flow", "there is no file 'no/such/file.py'"),
        ("tests.unit.worker.flows:flwo", "has no attribute 'flwo'; did you mean flow"),
        ("tests.unit.worker.flows:xyz", "has no attribute 'xyz'; its workflows are chain, flow, hooked"),
        ("tests.unit.worker.flows:flow.steeps_of", "Workflow has no attribute 'steeps_of'"),
        ("tests.unit.worker.flows:number", "number is an int, not a Workflow"),
        ("fuseline.workflow:Workflow", "Workflow is the class Workflow, not a Workflow"),
    ],
)
def test_what_is_wrong_is_said(target: str, said: str) -> None:
    with pytest.raises(LoadError) as caught:
        load(target)
    assert said in str(caught.value)
    assert repr(target) in str(caught.value)


def test_an_error_inside_the_module_is_told_from_a_missing_module(here: Path) -> None:
    (here / "broken_import.py").write_text("import no_such_library\n")
    (here / "broken_code.py").write_text("1 / 0\n")
    (here / "broken_exit.py").write_text("raise SystemExit(3)\n")
    for target, kind in (
        ("broken_import:flow", ModuleNotFoundError),
        ("broken_code:flow", ZeroDivisionError),
        ("broken_exit:flow", SystemExit),
        ("broken_code.py:flow", ZeroDivisionError),
    ):
        with pytest.raises(LoadError, match=f"importing .* failed: {kind.__name__}") as caught:
            load(target)
        assert isinstance(caught.value.__cause__, kind)


def test_a_file_that_was_meant_is_suggested(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "flows_here.py").write_text(FLOW)
    with pytest.raises(LoadError, match=r"did you mean sub/flows_here.py, a file"):
        load("sub/flows_here:flow")


def test_a_process_of_its_own_imports_what_is_a_variable_of_a_module() -> None:
    assert load(target_of(flows.flow)) == [flows.flow]
    assert targets_of([flows.flow], [(flows.flow, "my_flows.py:flow")]) == ["my_flows.py:flow"]

    @step
    def one() -> int:
        return 1

    hidden = Workflow(outputs=[one], workflow_id="hidden", version="1")
    with pytest.raises(LoadError, match=r"'hidden' is no variable of a module.*executor='thread'"):
        target_of(hidden)
