"""`fuseline doctor` finds what is wrong, says what to do about it, and is content when that was done."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.cli.harness import Fuseline


def examined(program: Fuseline, **environment: str) -> tuple[int, dict[str, Any]]:
    result = program("doctor", "--json", **environment)
    return result.returncode, {one["name"]: one for one in json.loads(result.stdout)}


def test_a_whole_installation_is_fine(installation: Fuseline) -> None:
    code, checks = examined(installation, FUSELINE_DATABASE_URL="sqlite:///fuseline.db")
    assert code == 0, checks
    assert {check["health"] for check in checks.values()} <= {"ok", "note"}
    assert checks["RabbitMQ"]["found"].startswith("reachable: RabbitMQ ")
    assert "3 workflow versions" in checks["coordinator"]["found"]
    assert checks["workers"]["found"] == "1 alive"
    assert checks["topology"]["health"] == "ok"
    assert "agrees" in checks["clock"]["found"]
    assert "reachable and migrated" in checks["database"]["found"]
    told = installation("doctor")
    assert told.returncode == 0
    assert "what to do" in told.stdout


def test_nothing_is_declared_and_nobody_answers(on_rabbitmq: Fuseline) -> None:
    code, checks = examined(on_rabbitmq)
    assert code == 1
    assert checks["topology"]["health"] == "problem"
    assert "fuseline topology apply" in checks["topology"]["advice"]
    assert checks["coordinator"]["health"] == "problem"
    # A worker's machine has no database, which is as it should be.
    assert checks["database"]["health"] == "note"
    assert on_rabbitmq("topology", "apply").returncode == 0
    _, checks = examined(on_rabbitmq, FUSELINE_CALL_SECONDS="1")
    assert checks["topology"]["health"] == "ok"
    assert "no coordinator answered" in checks["coordinator"]["found"]


def test_rabbitmq_is_away(fuseline: Fuseline) -> None:
    code, checks = examined(fuseline, FUSELINE_AMQP_URL="amqp://127.0.0.1:1/", FUSELINE_CALL_SECONDS="1")
    assert code == 1
    assert checks["RabbitMQ"]["health"] == "problem"
    assert "start RabbitMQ" in checks["RabbitMQ"]["advice"]


def test_another_queue_type_is_found(on_rabbitmq: Fuseline) -> None:
    assert on_rabbitmq("topology", "apply", "--queue-type", "classic").returncode == 0
    result = on_rabbitmq("doctor", "--json", FUSELINE_CALL_SECONDS="1")
    differing = [one for one in json.loads(result.stdout) if "differs" in one["found"]]
    assert len(differing) == 4
    assert all("FUSELINE_QUEUE_TYPE" in one["advice"] for one in differing)


def test_a_database_without_tables_and_one_that_is_away(fuseline: Fuseline, fresh_postgres_url: str) -> None:
    away = {"FUSELINE_AMQP_URL": "amqp://127.0.0.1:1/", "FUSELINE_CALL_SECONDS": "0.5"}
    _, checks = examined(fuseline, FUSELINE_DATABASE_URL=fresh_postgres_url, **away)
    assert checks["database"]["health"] == "problem"
    assert "fuseline db upgrade" in checks["database"]["advice"]
    assert fuseline("db", "upgrade", "--database-url", fresh_postgres_url).returncode == 0
    _, checks = examined(fuseline, FUSELINE_DATABASE_URL=fresh_postgres_url, **away)
    assert checks["database"]["health"] == "ok"
    assert checks["clock"]["health"] == "ok"
    gone = "postgresql://postgres:secret@127.0.0.1:1/x"
    _, checks = examined(fuseline, FUSELINE_DATABASE_URL=gone, **away)
    assert checks["database"]["health"] == "problem"
    assert "secret" not in json.dumps(checks)


def test_a_misspelt_variable_is_a_warning(on_rabbitmq: Fuseline) -> None:
    _, checks = examined(on_rabbitmq, FUSELINE_LEASE_SECOND="30", FUSELINE_CALL_SECONDS="1")
    assert checks["settings"]["health"] == "warning"
    assert checks["settings"]["advice"] == "did you mean FUSELINE_LEASE_SECONDS?"
