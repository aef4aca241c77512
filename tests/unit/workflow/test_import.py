"""What `import fuseline` gives, and what it does not cost."""

from __future__ import annotations

import subprocess
import sys

import fuseline
import fuseline.workflow


def test_what_users_import_is_there() -> None:
    names = (
        "Depends RetryPolicy TimeoutPolicy StepTimeoutPolicy ExpiryPolicy TriggerPolicy WorkflowTimeoutPolicy Workflow "
        "Step step Branch Condition Computed StepContext workflow_from_functions RunFailed FailureDecision StepPolicy "
        "WorkflowPolicy"
    )
    for name in names.split():
        assert name in fuseline.__all__
        assert hasattr(fuseline, name)
    names = "WorkflowSchema StepSchema Status RunStatus Step Workflow Depends Condition FunctionStep workflow_from_functions"
    for name in names.split():
        assert name in fuseline.workflow.__all__
    assert all(hasattr(fuseline, name) for name in fuseline.__all__)
    assert all(hasattr(fuseline.workflow, name) for name in fuseline.workflow.__all__)


def test_importing_it_imports_no_client_of_a_server() -> None:
    heavy = ["pika", "aio_pika", "sqlalchemy", "psycopg", "fastapi", "typer", "rich", "uvloop"]
    program = f"import sys, fuseline; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
