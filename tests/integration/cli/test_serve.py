"""`fuseline serve`, and the other commands through it: no RabbitMQ anywhere, or none that the client reaches."""

from __future__ import annotations

import re
import signal

from tests.integration.cli.harness import Fuseline, end


def address(program: Fuseline, *options: str) -> str:
    """Start the service on a free port, and return where it says it is."""
    service = program.background("serve", "--port", "0", *options)
    program.wait_for(lambda: "fuseline serves" in program.said(service))
    found = re.search(r"http://\S+", program.said(service))
    assert found is not None
    return found.group()


def test_embedded_it_is_an_installation_of_two_processes(fuseline: Fuseline) -> None:
    url = address(fuseline, "--embedded", "--database-url", "sqlite:///runs.db")
    fuseline.environment["FUSELINE_HTTP_URL"] = url
    worker = fuseline.background("worker", "flows:ingest")
    done = fuseline("dispatch", "flows:ingest", "url=x", "--wait", "--timeout", "30")
    assert done.returncode == 0, done.stderr
    run = fuseline.json("runs", "show", done.stdout.strip())
    assert run["outputs"] == {"measure": len("page at x")}
    assert len(fuseline.json("workers")) == 1
    checks = {one["name"]: one for one in fuseline.json("doctor")}
    assert checks["coordinator"]["health"] == "ok"
    assert "RabbitMQ" not in checks
    # The database has one owner: another one is turned away, and readers are not.
    second = fuseline("serve", "--port", "0", "--embedded", "--database-url", "sqlite:///runs.db")
    assert second.returncode == 5
    assert "second_coordinator: " in second.stderr
    listed = fuseline.json("runs", "list", "--embedded", "--database-url", "sqlite:///runs.db")
    assert [one["instance_id"] for one in listed] == [done.stdout.strip()]
    assert end(worker) == 0
    assert end(fuseline.started[0], signal.SIGTERM) == 0


def test_over_rabbitmq_it_stands_in_for_it(installation: Fuseline) -> None:
    url = address(installation)
    client = {"FUSELINE_HTTP_URL": url, "FUSELINE_AMQP_URL": "amqp://127.0.0.1:1/"}
    done = installation("dispatch", "ingest", "--inputs", '{"url": "abc"}', "--wait", **client)
    assert done.returncode == 0, done.stderr
    done = installation("dispatch", "flows:ingest", "url=abc", "--wait", "--timeout", "30", **client)
    assert done.returncode == 0, done.stderr
    wrong = installation("dispatch", "flows:ingest", "url=abc", "size=big", **client)
    assert wrong.returncode == 3
    gone = installation("runs", "show", "nonsense", **client)
    assert gone.returncode == 3
    assert "unknown_run: " in gone.stderr


def test_a_port_that_is_taken_is_told_in_one_line(fuseline: Fuseline) -> None:
    url = address(fuseline, "--embedded", "--database-url", "sqlite:///a.db")
    port = url.rpartition(":")[2].rstrip("/")
    second = fuseline("serve", "--embedded", "--database-url", "sqlite:///b.db", "--port", port)
    assert second.returncode == 5
    assert port in second.stderr
    assert second.stderr.count("\n") == 1, second.stderr
