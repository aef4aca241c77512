"""`fuseline topology` against a real RabbitMQ."""

from __future__ import annotations

import json

from fuseline.amqp.definitions import definitions
from fuseline.amqp.topology import Topology
from tests.integration.cli.harness import Fuseline


def test_verify_finds_what_is_missing_and_apply_mends_it(on_rabbitmq: Fuseline, topology_prefix: str) -> None:
    missing = on_rabbitmq("topology", "verify", "ingest@1")
    assert missing.returncode == 1
    assert f"queue '{topology_prefix}.steps.ingest.1'" in missing.stdout
    assert "missing" in missing.stdout
    declared = on_rabbitmq.json("topology", "apply", "flows:ingest")["declared"]
    assert f"queue '{topology_prefix}.steps.ingest.1'" in declared
    verdicts = on_rabbitmq.json("topology", "verify", "ingest@1")
    assert {one["finding"] for one in verdicts} == {"ok", "unknown"}
    assert all("binding" in one["resource"] for one in verdicts if one["finding"] == "unknown")
    # Again, which changes nothing.
    assert on_rabbitmq("topology", "apply", "flows:ingest").returncode == 0


def test_verify_finds_what_differs(on_rabbitmq: Fuseline) -> None:
    assert on_rabbitmq("topology", "apply", "--queue-type", "classic").returncode == 0
    differs = on_rabbitmq("topology", "verify")
    assert differs.returncode == 1
    assert "inequivalent arg 'x-queue-type'" in differs.stdout
    # Nothing was changed by looking.
    assert on_rabbitmq("topology", "verify", "--queue-type", "classic").returncode == 0


def test_export_is_what_rabbitmq_imports(fuseline: Fuseline) -> None:
    exported = fuseline("topology", "export", "ingest@1", "--prefix", "other", "--vhost", "flows")
    assert exported.returncode == 0
    assert json.loads(exported.stdout) == definitions(
        Topology("other"), workflows=[("ingest", "1")], virtual_host="flows"
    )
    only = json.loads(fuseline("topology", "export", "--policies").stdout)
    assert list(only) == ["policies"]
    assert fuseline("topology", "export", "-o", "out.json").returncode == 0
    assert json.loads((fuseline.folder / "out.json").read_text())["queues"]
    nowhere = fuseline("topology", "export", "-o", "no/such/folder.json")
    assert nowhere.returncode == 2
    assert "--output no/such/folder.json" in nowhere.stderr


def test_what_names_no_workflow_is_refused(fuseline: Fuseline) -> None:
    result = fuseline("topology", "export", "ingest")
    assert result.returncode == 2
    assert "workflow 'ingest' is neither module:workflow nor id@version" in result.stderr
