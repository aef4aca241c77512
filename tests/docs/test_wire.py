"""The page "The wire" is enough to write a worker: its examples are what the code reads, and its worker works.

P1, P5: the worker of the page holds short steps by their delivery and long ones by a lease.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fuseline.amqp import codec
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.definitions import Account, Role, rights
from fuseline.amqp.topology import Topology, encode_part
from fuseline.amqp.wire import Claim, Command, ControlNotice, Heartbeat, Reply
from fuseline.broker.amqp import AmqpBroker
from fuseline.clock import ManualClock
from fuseline.coordinator.announcing import HEARD_SECONDS
from fuseline.coordinator.bundles import reports_in
from fuseline.coordinator.commands import CheckArgs, Commands, DispatchArgs, DispatchManyArgs, RegisterArgs
from fuseline.coordinator.decoding import read_report
from fuseline.engine import Rules
from fuseline.ledger import Ledger
from fuseline.model.messages import Cause, FailureDecision, StepAssignment, StepReport
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import RunStatus, Status
from fuseline.settings import Settings
from fuseline.storage import MemoryRuntimeStorage
from fuseline.testing.servers import PrivateRabbitMQ
from tests.docs.pages import ROOT, read_page
from tests.integration.coordinator.harness import coordinating

PAGE = ROOT / "docs" / "wire.md"
PROSE = " ".join(PAGE.read_text().split())
SNIPPETS = {snippet.title: snippet.text for snippet in read_page(PAGE) if snippet.title is not None}
WORKER = SNIPPETS["tiny_worker.py"]
EXAMPLES = {
    name.removesuffix(".json"): json.loads(text) for name, text in SNIPPETS.items() if ".json" in name
}

MODELS: dict[str, type[BaseModel]] = {
    "assignment": StepAssignment,
    "report": StepReport,
    "report-failed": StepReport,
    "claim": Claim,
    "heartbeat": Heartbeat,
    "stop": ControlNotice,
    "register": Command,
    "check": Command,
    "dispatch": Command,
    "dispatch-many": Command,
    "reply": Reply,
    "reply-error": Reply,
}
ARGUMENTS: dict[str, type[BaseModel]] = {
    "register": RegisterArgs,
    "check": CheckArgs,
    "dispatch": DispatchArgs,
    "dispatch-many": DispatchManyArgs,
}
GREETINGS = WorkflowSchema(**EXAMPLES["register"]["args"]["workflows"][0])


# ---- the examples


@pytest.mark.parametrize("name", MODELS)
def test_an_example_is_what_the_code_reads(name: str) -> None:
    example, model = EXAMPLES[name], MODELS[name]
    read = model.model_validate(example)
    # Unknown fields are ignored on the wire, so that a field which was renamed would pass unseen.
    assert set(example) <= set(model.model_fields)
    written = json.loads(codec.encode(read))
    assert {key: written[key] for key in example if key != "error"} == {
        key: value for key, value in example.items() if key != "error"
    }


def test_every_example_was_compared() -> None:
    assert set(EXAMPLES) == {*MODELS, "event"}


def test_several_reports_in_one_message_are_what_the_code_reads() -> None:
    body = SNIPPETS["reports.ndjson"].strip().encode()
    properties = codec.properties(codec.REPORTS, message_id="m", timestamp=0.0)
    exchange = Topology().reports_exchange("greetings")
    whole = Delivery(1, 1, body, properties, exchange, "", False, "q", None)
    steps = [getattr(read_report(one, Topology()).event, "step", None) for one in reports_in(whole)]
    assert steps == ["shout", "greet"]


def test_an_assignment_shows_every_field() -> None:
    assert set(EXAMPLES["assignment"]) == set(StepAssignment.model_fields)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_arguments_of_a_command_are_such_as_the_coordinator_takes(name: str) -> None:
    assert EXAMPLES[name]["name"] == name.replace("-", "_")
    ARGUMENTS[name].model_validate(EXAMPLES[name]["args"])


def test_every_command_is_mentioned() -> None:
    storage, clock = MemoryRuntimeStorage(), ManualClock()
    known = Commands(Ledger(storage, clock), storage, clock).names | {
        "register",
        "dispatch",
        "dispatch_many",
        "cancel",
    }
    assert {name for name in known if f"`{name}`" not in PROSE} == set()


@pytest.mark.parametrize(
    "word",
    [
        *(
            value
            for name, value in vars(codec).items()
            if name.isupper() and str(value).startswith("fuseline.")
        ),
        *(cause for cause in (Cause.ERROR, Cause.TIMEOUT, Cause.INVALID)),
        *(state for state in Status if state.is_terminal),
    ],
)
def test_every_word_of_the_wire_is_mentioned(word: str) -> None:
    assert f"`{word}`" in PROSE


@pytest.mark.parametrize("decision", FailureDecision)
def test_every_decision_is_mentioned(decision: FailureDecision) -> None:
    assert f'"{decision}"' in PROSE


def test_the_times_are_the_defaults() -> None:
    defaults = Settings.model_construct()
    assert f"takes longer than {defaults.claim_after_seconds:g} seconds" in PROSE
    assert f"every {defaults.heartbeat_seconds:g} seconds" in PROSE
    assert f"mentions for {defaults.lease_seconds:g} seconds" in PROSE
    assert defaults.sweep_seconds == 120  # "after two minutes without a word"
    assert defaults.max_message_bytes == 8 * 1024 * 1024
    assert codec.MAX_NESTING == 200


# ---- the names


def page_functions() -> dict[str, Any]:
    (text,) = [s.text for s in read_page(PAGE) if s.language == "python" and s.title is None]
    names: dict[str, Any] = {}
    exec(compile(text, str(PAGE), "exec"), names)
    return names


NAMES = page_functions()


@given(st.text(min_size=1, max_size=130).filter(lambda text: text.isprintable()), st.booleans())
def test_the_page_encodes_names_as_the_code_does(text: str, keep_dots: bool) -> None:
    assert NAMES["part"](text, keep_dots=keep_dots) == encode_part(text, keep_dots=keep_dots)


@given(st.text("ab.~/é", min_size=1, max_size=60), st.text("12.-", min_size=1, max_size=60))
def test_the_page_finds_the_queue(workflow_id: str, version: str) -> None:
    assert NAMES["steps_queue"](workflow_id, version) == Topology().steps_queue(workflow_id, version)


def test_the_keys_to_watch_by_are_those_of_our_own_watchers() -> None:
    """Who names a run and binds one key only is not noticed, and misses what happens."""
    run, topology = EXAMPLES["event"]["instance_id"], Topology()
    rows = re.findall(r"^\| ([^|]+) \| ((?:`[^`]+`(?: and )?)+) \|$", PAGE.read_text(), re.MULTILINE)
    assert {name: re.findall("`([^`]+)`", keys) for name, keys in rows} == {
        "everything": topology.events_patterns(),
        "one workflow": topology.events_patterns("greetings"),
        "failures": topology.events_patterns(event="step_failed"),
        "one run": topology.events_patterns(instance_id=run),
        "one run, whose workflow is known": topology.events_patterns("greetings", run),
        "failures of one run": topology.events_patterns(instance_id=run, event="step_failed"),
    }
    assert topology.any_run_key("greetings", "step_failed") in PROSE.replace("`", " ").split()
    assert HEARD_SECONDS == 60  # "in the last minute"


def test_the_rights_on_the_page_are_those_of_the_role() -> None:
    account = Account("anybody", Role.WORKER, ("greetings",))
    shown = dict(re.findall(r"^(configure|write|read) +(\S+)$", PAGE.read_text(), re.MULTILINE))
    assert shown == rights(Topology(), account)._asdict()


# ---- the worker


@dataclass
class Installation:
    """A RabbitMQ of its own with a coordinator, and the address of a user with the rights that the page shows."""

    broker: AmqpBroker
    worker_url: str
    folder: Path


@pytest.fixture
def installation(rabbitmq_server: PrivateRabbitMQ, tmp_path: Path) -> Iterator[Installation]:
    host = f"wire-{secrets.token_hex(4)}"
    url = rabbitmq_server.add_virtual_host(host)
    user, password = f"worker-{secrets.token_hex(4)}", secrets.token_hex(8)
    rabbitmq_server.rabbitmqctl("add_user", user, password)
    granted = rights(Topology(), Account(user, Role.WORKER, ("greetings",)))
    rabbitmq_server.rabbitmqctl("set_permissions", "-p", host, user, *granted)
    parts = urlsplit(url)
    worker_url = urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}"))
    (tmp_path / "tiny_worker.py").write_text(WORKER)
    with (
        coordinating(url, Topology(), MemoryRuntimeStorage(), Rules(lease_seconds=2.0)),
        AmqpBroker(url) as broker,
    ):
        yield Installation(broker, worker_url, tmp_path)


@contextmanager
def working(installation: Installation, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The worker as a process of its own, for as long as the context is open."""
    process = subprocess.Popen(
        [sys.executable, *arguments, installation.worker_url],
        cwd=installation.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
        assert process.poll() is None, process.communicate()[0]
    finally:
        process.kill()
        process.communicate()


def test_the_worker_of_the_page_executes_a_run(installation: Installation) -> None:
    """With nothing but the page, and with no right beyond those it shows."""
    run_id = installation.broker.dispatch_workflow(GREETINGS, {"name": "Ada"})
    with working(installation, "tiny_worker.py"):
        run = installation.broker.wait(run_id, timeout=30)
        second = installation.broker.dispatch_workflow(GREETINGS, {"name": "Grace"})
        again = installation.broker.wait(second, timeout=30)
    assert run.state is RunStatus.SUCCEEDED
    assert run.outputs == {"shout": "HELLO, ADA"}
    assert {str(step.worker_id)[:5] for step in run.steps.values()} == {"tiny-"}
    assert again.outputs == {"shout": "HELLO, GRACE"}


def test_what_its_step_raises_is_reported(installation: Installation) -> None:
    run_id = installation.broker.dispatch_workflow(GREETINGS, {"nobody": "here"})
    with working(installation, "tiny_worker.py"):
        run = installation.broker.wait(run_id, timeout=30)
    assert run.state is RunStatus.FAILED
    assert run.error is not None
    assert (run.failed_step, run.error.type, run.error.message) == ("greet", "KeyError", "'name'")


def test_it_holds_a_long_step_by_a_lease(installation: Installation) -> None:
    """The step takes twice as long as a lease lasts, so heartbeats must have carried it on (P5)."""
    (installation.folder / "slow.py").write_text(
        textwrap.dedent("""
            import sys, time
            import tiny_worker

            def execute(step, payload):
                time.sleep(4 if step == "greet" else 0)
                return step

            tiny_worker.execute = execute
            tiny_worker.main(sys.argv[1], claim_after=0.3, beat_every=0.3)
            """)
    )
    run_id = installation.broker.dispatch_workflow(GREETINGS, {"name": "Ada"})
    with working(installation, "slow.py"):
        claimed = step_once(installation.broker, run_id, "greet", Status.RUNNING)
        run = installation.broker.wait(run_id, timeout=30)
    assert str(claimed.worker_id).startswith("tiny-")
    assert run.outputs == {"shout": "shout"}
    assert [step.attempt for step in run.steps.values()] == [1, 1]


def test_it_may_be_killed_in_the_middle_of_a_step(installation: Installation) -> None:
    """P1: RabbitMQ gives what it held to the next one at once; nothing waits for a lease."""
    started = installation.folder / "started"
    (installation.folder / "stuck.py").write_text(
        textwrap.dedent(f"""
            import sys, time
            from pathlib import Path
            import tiny_worker

            def execute(step, payload):
                Path({str(started)!r}).touch()
                time.sleep(600)

            tiny_worker.execute = execute
            tiny_worker.main(sys.argv[1])
            """)
    )
    run_id = installation.broker.dispatch_workflow(GREETINGS, {"name": "Ada"})
    with working(installation, "stuck.py"):
        wait_for(started.exists)
    with working(installation, "tiny_worker.py"):
        run = installation.broker.wait(run_id, timeout=30)
    assert run.outputs == {"shout": "HELLO, ADA"}


def step_once(broker: AmqpBroker, run_id: str, step: str, state: Status) -> Any:
    found = []

    def is_there() -> bool:
        view = broker.get_run(run_id).steps[step]
        if view.state is state:
            found.append(view)
        return bool(found)

    wait_for(is_there)
    return found[0]


def wait_for(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        with suppress(InterruptedError):
            time.sleep(0.05)
