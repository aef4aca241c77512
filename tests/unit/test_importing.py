"""`import fuseline` is what everybody pays who writes a workflow: what only some need waits until they do."""

from __future__ import annotations

import subprocess
import sys

SLOW = (
    "asyncio",
    "yaml",
    "pika",
    "sqlalchemy",
    "fastapi",
    "fuseline.engine",
    "fuseline.ledger",
    "fuseline.storage",
    "fuseline.broker",
    "fuseline.worker",
)


def loaded(program: str) -> set[str]:
    """Modules that a fresh interpreter has after `program`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


def test_importing_fuseline_loads_nothing_slow() -> None:
    assert loaded("import fuseline") & set(SLOW) == set()


def test_who_executes_a_run_loads_what_that_needs() -> None:
    program = (
        "import fuseline\n"
        "def one(): return 1\n"
        "assert fuseline.workflow_from_functions(one, workflow_id='w').run() == 1\n"
    )
    assert {"asyncio", "fuseline.engine", "fuseline.ledger"} <= loaded(program)


def test_a_worker_on_rabbitmq_loads_no_database_and_no_http_client() -> None:
    strange = {"sqlalchemy", "httpx", "rich.console", "fuseline.ledger", "fuseline.storage.sql"}
    assert loaded("import fuseline.cli.worker") & strange == set()
    assert "httpx" in loaded("from fuseline.broker import HttpBroker")
