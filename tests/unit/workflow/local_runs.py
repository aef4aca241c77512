"""What the tests of runs in this process share."""

from __future__ import annotations

from typing import Any

import pytest

from fuseline import RunFailed, Workflow, step
from fuseline.model import RunView, StepError

SECONDS = 20.0
"""How long a test waits for what has to happen."""


def failure(workflow: Workflow, **options: Any) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        workflow.run(**options)
    return caught.value


def error_of(failed: RunFailed) -> StepError:
    assert isinstance(failed.error, StepError)
    return failed.error


def view_of(failed: RunFailed) -> RunView:
    assert isinstance(failed.run, RunView)
    return failed.run


@step
def one() -> int:
    return 1
