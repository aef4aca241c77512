"""`fuseline db` on both databases."""

from __future__ import annotations

import pytest

from tests.integration.cli.harness import Fuseline


@pytest.fixture(params=["sqlite", "postgresql"])
def on_database(fuseline: Fuseline, request: pytest.FixtureRequest) -> Fuseline:
    """The program with an empty database."""
    if request.param == "sqlite":
        url = f"sqlite:///{fuseline.folder / 'runs.db'}"
    else:
        url = request.getfixturevalue("fresh_postgres_url")
    fuseline.environment["FUSELINE_DATABASE_URL"] = url
    return fuseline


def test_tables_are_made_once_and_then_found(on_database: Fuseline) -> None:
    db = on_database
    assert "fuseline db upgrade" in db("db", "current").stdout
    unfit = db("db", "check")
    assert unfit.returncode == 1
    assert "fuseline db upgrade" in unfit.stderr
    assert db.json("db", "upgrade")["changed"] is True
    revision = db.json("db", "current")["revision"]
    assert revision
    assert db.json("db", "upgrade") == {"before": revision, "after": revision, "changed": False}
    assert db("db", "upgrade").stdout == f"up to date: {revision}\n"
    assert db("db", "check").stdout == "fine\n"


def test_a_coordinator_needs_the_tables_of_a_postgresql(
    on_rabbitmq: Fuseline, fresh_postgres_url: str
) -> None:
    result = on_rabbitmq.process("coordinator", "--database-url", fresh_postgres_url)
    assert result.returncode == 5
    assert "migration_needed: " in result.stderr
    assert "fuseline db upgrade" in result.stderr


def test_a_database_that_is_away_is_told_in_one_line(fuseline: Fuseline) -> None:
    result = fuseline("db", "check", "--database-url", "postgresql://postgres:secret@127.0.0.1:1/x")
    assert result.returncode == 4
    assert result.stderr.startswith("fuseline: storage_unavailable: ")
    assert "secret" not in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense"])
def test_another_kind_of_database_is_refused(fuseline: Fuseline, url: str) -> None:
    result = fuseline("db", "current", "--database-url", url)
    assert result.returncode in (2, 3)
    assert "sqlite" in result.stderr
    assert "Traceback" not in result.stderr
