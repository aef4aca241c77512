"""`fuseline dead-letters` over an embedded broker's database, and on RabbitMQ with a worker that goes on (P1, P7)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fuseline.broker import MemoryBroker
from fuseline.model import RunStatus
from fuseline.storage.sql import open_storage
from fuseline.testing.flows import Player, graph, report_on
from tests.integration.cli.harness import Fuseline

SCHEMA = graph("orders", {"pay": ["ship"]})


@contextmanager
def broker_of(fuseline: Fuseline) -> Iterator[MemoryBroker]:
    fuseline.environment["FUSELINE_DATABASE_URL"] = url = f"sqlite:///{fuseline.folder}/runs.db"
    with MemoryBroker(open_storage(url), close_storage=True) as broker:
        yield broker


def fail(broker: MemoryBroker, count: int = 1) -> list[str]:
    """So many runs that failed at `pay`."""
    worker = Player(broker, broker.register_worker([SCHEMA]))
    runs = [broker.dispatch_workflow(SCHEMA, {"order": number}) for number in range(count)]
    for run in runs:
        worker.play(run, {"pay": lambda one: report_on(one, error="no money")})
    return runs


def test_a_dead_letter_is_listed_shown_and_replayed_once(fuseline: Fuseline) -> None:
    with broker_of(fuseline) as broker:
        (run,) = fail(broker)
    (letter,) = fuseline.json("dead-letters", "list", "--embedded", "--reason", "failed", "--run", run)
    letter_id = letter["letter_id"]
    assert (letter["step_name"], letter["attempt"], letter["state"]) == ("pay", 1, "open")
    assert letter_id in fuseline("dead-letters", "list", "--embedded").stdout
    assert fuseline.json("dead-letters", "list", "--embedded", "--state", "replayed") == []
    shown = fuseline("dead-letters", "show", letter_id, "--embedded").stdout
    assert "no money" in shown
    assert '"order": 0' in shown
    replayed = fuseline("dead-letters", "replay", letter_id, "--embedded")
    assert replayed.stdout == f"replayed {letter_id}: step pay of run {run}\n1 dead letter done, 0 refused\n"
    again = fuseline("dead-letters", "replay", letter_id, "--embedded")
    assert again.returncode == 0
    assert again.stdout.startswith(f"replayed before {letter_id}")
    with broker_of(fuseline) as broker:
        worker = Player(broker, broker.register_worker([SCHEMA]))
        assert worker.play(run).state is RunStatus.SUCCEEDED


def test_all_that_fit_are_replayed_and_what_is_refused_is_told(fuseline: Fuseline) -> None:
    with broker_of(fuseline) as broker:
        runs = fail(broker, 3)
        other = broker.list_dead_letters(instance_id=runs[0])[0].letter_id
    discarded = fuseline.json("dead-letters", "discard", other, "--embedded", "--yes")
    assert [one["state"] for one in discarded] == ["discarded"]
    unsure = fuseline("dead-letters", "replay", "--all", "--embedded", stdin="")
    assert unsure.returncode == 2
    assert "--yes" in unsure.stderr
    none = fuseline("dead-letters", "replay", "--all", "--reason", "expired", "--embedded", "--yes")
    assert none.stdout == "0 dead letters done, 0 refused\n"
    done = fuseline("dead-letters", "replay", "--all", "--reason", "failed", "--embedded", "--yes")
    assert done.stdout.endswith("2 dead letters done, 0 refused\n")
    refused = fuseline("dead-letters", "replay", other, "--embedded", "--json")
    assert refused.returncode == 3
    assert '"code": "not_replayable"' in refused.stdout
    assert "discarded" in refused.stderr


MENDED = '''\
"""A step that fails until somebody has mended something, beside one that is stopped for it."""

import pathlib
import time

from fuseline import Depends, StepContext, Workflow, step


def wait_for(name: str, ctx: StepContext) -> bool:
    until = time.monotonic() + 120
    while not ctx.cancelled and time.monotonic() < until:
        if pathlib.Path(name).exists():
            return True
        time.sleep(0.02)
    return False


@step
def long(ctx: StepContext) -> str:
    pathlib.Path("began").touch()
    return "stopped" if not wait_for("mended", ctx) else "done"


@step
def bad(ctx: StepContext) -> str:
    assert wait_for("began", ctx)
    if not pathlib.Path("mended").exists():
        raise ValueError("not mended")
    return "done"


@step
def end(one: str = Depends(long), other: str = Depends(bad)) -> list[str]:
    return [one, other]


ingest = Workflow(outputs=[end], workflow_id="ingest", version="1")
'''


def test_what_a_command_replays_goes_on_at_the_worker_that_was_told_to_stop(on_rabbitmq: Fuseline) -> None:
    """P1 with processes of their own: there is one worker, and it is never restarted."""
    run = on_rabbitmq
    (run.folder / "mended_flows.py").write_text(MENDED)
    run.background("coordinator")
    run.wait_for(lambda: run("workflows", "--json").returncode == 0)
    run.background("worker", "mended_flows:ingest")
    run.wait_for(lambda: len(run.json("workers")) == 1)
    failed = run("dispatch", "mended_flows:ingest", "--wait", "--timeout", "60")
    assert failed.returncode == 1, failed.stderr
    instance_id = failed.stdout.strip()
    shown = run.json("runs", "show", instance_id)
    assert {name: step["state"] for name, step in shown["steps"].items()} == {
        "long": "CANCELLED",
        "bad": "FAILED",
        "end": "CANCELLED",
    }
    (run.folder / "mended").touch()
    (letter,) = run.json("dead-letters", "list", "--run", instance_id)
    (replayed,) = run.json("dead-letters", "replay", letter["letter_id"])
    assert (replayed["done"], replayed["next_attempt"]) == ("replayed", 2)
    watched = run("runs", "watch", instance_id, "--timeout", "60")
    assert watched.returncode == 0, watched.stdout + watched.stderr + run.log()
    assert run.json("runs", "show", instance_id)["outputs"] == {"end": ["done", "done"]}
    (letter,) = run.json("dead-letters", "list", "--run", instance_id)
    assert letter["state"] == "replayed"


def test_wrong_options_are_told_in_a_line(fuseline: Fuseline) -> None:
    for arguments, said in (
        (("replay", "--embedded"), "--all"),
        (("replay", "x", "--all", "--embedded"), "--all"),
        (("replay", "x", "--run", "y", "--embedded"), "go with --all"),
        (("list", "--reason", "bad", "--embedded"), "expired, poison"),
        (("list", "--state", "bad", "--embedded"), "open, replayed"),
    ):
        refused = fuseline("dead-letters", *arguments)
        assert refused.returncode == 2
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1
    with broker_of(fuseline) as broker:
        fail(broker)
    unknown = fuseline("dead-letters", "show", "0" * 32, "--embedded")
    assert unknown.returncode == 3
    assert unknown.stderr.startswith("fuseline: unknown_dead_letter: ")
