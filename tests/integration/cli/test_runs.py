"""From dispatch to the end of a run, by commands alone: coordinator, worker and client are processes of their own."""

from __future__ import annotations

import signal

from tests.integration.cli.harness import Fuseline, end


def test_a_run_from_beginning_to_end(installation: Fuseline) -> None:
    """One installation for all of it: starting one takes longer than everything that is asked of it."""
    run = installation
    # Dispatch by module, and watch it on stderr; stdout has the instance id and nothing else.
    done = run("dispatch", "flows:ingest", "url=file:///a.html", "--wait", "--timeout", "30")
    assert done.returncode == 0, done.stderr
    first = done.stdout.strip()
    assert len(first) == 32
    assert f"run {first} ✓ SUCCEEDED" in done.stderr

    # By its registered id, with and without a version, from a file, and from stdin.
    (run.folder / "inputs.yaml").write_text("url: file:///b.html\nsize: 3\n")
    second = run.json("dispatch", "ingest@1", "--inputs-file", "inputs.yaml")["instance_id"]
    third = run("dispatch", "ingest", "--inputs-file", "-", stdin='{"url": "x"}').stdout.strip()
    ended = run.json("dispatch", "ingest", "--inputs", '{"url": "abc"}', "--wait")
    assert ended["outputs"] == {"measure": len("page at abc")}

    # Watching, when it goes on and when it is over.
    for instance_id in (second, third):
        watched = run("runs", "watch", instance_id, "--timeout", "30")
        assert watched.returncode == 0, watched.stderr
        assert f"run {instance_id} ✓ SUCCEEDED" in watched.stdout

    # Looking.
    shown = run("runs", "show", first)
    assert "└─ measure" in shown.stdout
    assert '"url": "file:///a.html"' in shown.stdout
    assert run.json("runs", "show", second)["inputs"] == {"url": "file:///b.html", "size": 3}
    listed = run.json("runs", "list", "--workflow", "ingest", "--state", "succeeded")
    assert [one["instance_id"] for one in listed] == [ended["instance_id"], third, second, first]
    page = run("runs", "list", "--limit", "2")
    assert ended["instance_id"] in page.stdout
    assert f"--before {third}" in page.stderr
    assert [one["instance_id"] for one in run.json("runs", "list", "--before", second)] == [first]
    assert "ingest 1" in run("workers").stdout
    workflows = {one["workflow_id"]: one for one in run.json("workflows")}
    assert workflows["ingest"]["description"] == "Fetch and measure"
    assert "url, [size]" in run("workflows").stdout

    # A run that fails says where and why, with exit code 1.
    failed = run("dispatch", "flows:failing", "reason=bad luck", "--wait")
    assert failed.returncode == 1
    assert "FAILED in step fail: ValueError: bad luck" in failed.stderr
    assert "ValueError: bad luck" in run("runs", "show", failed.stdout.strip()).stdout
    assert "bad luck" in run("runs", "list", "--state", "failed").stdout

    # Cancelling.
    long = run.json("dispatch", "flows:waiting", "seconds=60")["instance_id"]
    assert run("runs", "cancel", long).stdout == f"cancelled {long}\n"
    cancelled = run("runs", "watch", long, "--timeout", "20")
    assert cancelled.returncode == 1
    assert "CANCELLED" in cancelled.stdout


def test_what_is_asked_wrongly_is_refused_before_anything_happens(installation: Fuseline) -> None:
    run = installation
    for arguments, code, told in [
        (
            ["dispatch", "flows:ingest", "url=x", "size=big"],
            3,
            "invalid_inputs: workflow 'ingest': input 'size'",
        ),
        (["dispatch", "flows:ingest"], 3, '"url" is a required property'),
        (["dispatch", "flows:ingest", "url"], 2, "usage: input 'url' is not key=value"),
        (["dispatch", "flows:ingests"], 3, "did you mean ingest"),
        (["dispatch", "no_such_module:w"], 3, "load_error: 'no_such_module:w': there is no module"),
        (["dispatch", "flows:several"], 2, "holds 2 workflows; name one"),
        (["dispatch", "unheard-of"], 3, "unknown_workflow: "),
        (["dispatch", "ingest@99"], 3, "unknown_workflow: "),
        (["dispatch", "flows:ingest", "url=x", "--timeout", "3"], 2, "--timeout goes with --wait"),
        (["runs", "show", "nonsense"], 3, "unknown_run: "),
        (["runs", "cancel", "nonsense"], 3, "unknown_run: "),
        (
            ["runs", "list", "--state", "happy"],
            2,
            "--state happy: one of running, succeeded, failed, cancelled",
        ),
        (["runs", "list", "--limit", "0"], 2, "limit"),
    ]:
        result = run(*arguments)
        assert result.returncode == code, (arguments, result)
        assert told in result.stderr, (arguments, result)
        assert "Traceback" not in result.stderr
        assert result.stdout == ""
    assert run.json("runs", "list") == []
    # A run that takes longer than one waits for goes on.
    late = run("dispatch", "flows:waiting", "seconds=5", "--wait", "--timeout", "0.5")
    assert late.returncode == 4
    assert f"it goes on: fuseline runs watch {late.stdout.strip()}" in late.stderr
    assert run("runs", "watch", late.stdout.strip(), "--timeout", "30").returncode == 0


def test_daemons_and_watchers_end_in_order(installation: Fuseline) -> None:
    coordinator, worker = installation.started
    waiting = installation.background("dispatch", "flows:waiting", "seconds=30", "--wait")
    installation.wait_for(lambda: bool(installation.json("runs", "list", "--state", "running")))
    assert end(waiting, signal.SIGINT) == 130
    instance_id = installation.json("runs", "list")[0]["instance_id"]
    installation("runs", "cancel", instance_id)
    assert end(worker, signal.SIGTERM) == 0
    assert end(coordinator, signal.SIGINT) == 0
    assert "Traceback" not in installation.log()


def test_without_a_coordinator_it_says_so(on_rabbitmq: Fuseline) -> None:
    result = on_rabbitmq.process("dispatch", "flows:ingest", "url=x")
    assert result.returncode == 4
    assert result.stderr.startswith("fuseline: broker_unavailable: ")
    assert "fuseline coordinator" in result.stderr
    assert on_rabbitmq("topology", "apply").returncode == 0
    silent = on_rabbitmq("runs", "list", "--call-seconds", "0.5")
    assert silent.returncode == 4
    assert "no coordinator answered 'list_runs'" in silent.stderr


def test_without_rabbitmq_it_says_so(fuseline: Fuseline) -> None:
    for arguments in (["runs", "list"], ["topology", "verify"]):
        result = fuseline(*arguments, FUSELINE_AMQP_URL="amqp://127.0.0.1:1/", FUSELINE_CALL_SECONDS="1")
        assert result.returncode == 4, result
        assert result.stderr.startswith("fuseline: broker_unavailable: RabbitMQ at 127.0.0.1:1")
        assert result.stderr.count("\n") == 1


def test_debug_shows_the_trace_before_the_line(fuseline: Fuseline) -> None:
    result = fuseline.process("topology", "verify", "--amqp-url", "http://x", "--debug")
    assert result.returncode == 3
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("fuseline: caller_error: not an AMQP address")
