"""Every page of the documentation does what it says: its snippets are executed, in order, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from fuseline.testing.servers import PrivatePostgres, PrivateRabbitMQ
from fuseline.testing.servers.base import LOOPBACK, free_ports
from tests.docs.pages import ROOT, all_pages, read_page

# What a page calls the reader's own servers; here they are private ones.
AMQP_ADDRESS = r"amqp://[^\s\"'/]*localhost[^\s\"'/]*(?:/(?:%2F)?(?=[\s\"')]|$))?"
POSTGRES_ADDRESS = r"postgresql(\+psycopg)?://[^\s\"']*localhost[^\s\"']*"
HTTP_PORT = r"\b8000\b"
NOBODY = f"amqp://guest:guest@{LOOPBACK}:1/"


def run_page(
    page: Path, folder: Path, replacements: dict[str, str], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Execute a page in `folder`, with nothing of this process's own Fuseline settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FUSELINE_")}
    bin_dir = str(Path(sys.executable).parent)
    return subprocess.run(
        [sys.executable, "-P", "-m", "tests.docs.runner", str(page), json.dumps(replacements)],
        cwd=folder,
        env={
            **inherited,
            "PATH": f"{bin_dir}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "120",
            **environment,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", all_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_snippet_of_the_page_works(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    executed = "\n".join(snippet.text for snippet in read_page(page) if snippet.executed)
    # A page that forgets to say which RabbitMQ it means must not reach the one of whoever runs the tests.
    environment = {"FUSELINE_AMQP_URL": NOBODY}
    replacements = {}
    if re.search(AMQP_ADDRESS, executed):
        rabbitmq: PrivateRabbitMQ = request.getfixturevalue("rabbitmq_server")
        url = rabbitmq.add_virtual_host(f"page-{secrets.token_hex(4)}")
        replacements[AMQP_ADDRESS] = environment["FUSELINE_AMQP_URL"] = url
    if re.search(POSTGRES_ADDRESS, executed):
        postgres: PrivatePostgres = request.getfixturevalue("postgres_server")
        dsn = postgres.create_database(f"page_{secrets.token_hex(4)}")
        replacements[POSTGRES_ADDRESS] = dsn.replace("postgresql://", r"postgresql\1://")
        environment["FUSELINE_DATABASE_URL"] = dsn
    if re.search(HTTP_PORT, executed):
        replacements[HTTP_PORT] = str(free_ports(1)[0])
    done = run_page(page, tmp_path, replacements, environment)
    assert done.returncode == 0, done.stdout
