"""Messages that nobody of ours would send: undecodable, oversized, forged, and copies of real ones."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pika

from fuseline.amqp import codec
from tests.fault.adversary.base import PARKED, Evidence, Fault, Stage
from tests.fault.workload.graphs import draw_scripts

FORGED = "forged"
"""What a forged report has as its result: no row may ever hold it."""

_OVERSIZED_BYTES = 9 * 1024 * 1024


def _properties(kind: str, mark: str) -> pika.BasicProperties:
    return pika.BasicProperties(
        content_type="application/json", delivery_mode=2, type=kind, message_id=mark, headers={"fault": mark}
    )


def _send(stage: Stage, exchange: str, key: str, body: bytes, kind: str) -> str:
    mark = f"adversary-{secrets.token_hex(6)}"
    stage.world.history.write("injected", mark=mark, exchange=exchange, bytes=len(body))
    stage.world.taps.publish(exchange, key, body, _properties(kind, mark))
    return mark


def _parked(stage: Stage, exchange: str) -> Evidence:
    """Evidence: a coordinator parked it, and says where it came from."""
    return stage.logged(f"{PARKED}|cannot be read|is not JSON|undecodable", 15.0)


def _garbage(stage: Stage) -> bytes:
    return stage.random.choice(
        (b"", b"{", b"\xff\xfe\x00", b"[]", b"nul", b'{"a": NaN}', b"{}", b'"' + b"x" * 1000, b"[" * 5000)
    )


def _undecodable_report(stage: Stage) -> Evidence:
    schema = stage.random.choice(stage.world.schemas)
    exchange = stage.world.topology.reports_exchange(schema.workflow_id)
    stage.target = exchange
    for _ in range(stage.random.randint(1, 4)):
        _send(stage, exchange, "", _garbage(stage), stage.random.choice((codec.REPORT, codec.CLAIM, "what")))
    return _parked(stage, exchange)


def _undecodable_assignment(stage: Stage) -> Evidence:
    schema = stage.random.choice(stage.world.schemas)
    topology = stage.world.topology
    stage.target = topology.steps_queue(schema.workflow_id, schema.version)
    key = topology.steps_key(schema.workflow_id, schema.version)
    for _ in range(stage.random.randint(1, 3)):
        _send(stage, topology.steps_exchange, key, _garbage(stage), codec.ASSIGNMENT)
    return _parked(stage, topology.dead_exchange)


def _undecodable_command(stage: Stage) -> Evidence:
    topology = stage.world.topology
    stage.target = topology.commands_exchange
    for _ in range(stage.random.randint(1, 3)):
        _send(stage, topology.commands_exchange, "", _garbage(stage), codec.COMMAND)
    return lambda: "consumed" if stage.world.taps.is_empty(topology.commands_queue, 15.0) else None


def _oversized(stage: Stage) -> Evidence:
    schema = stage.random.choice(stage.world.schemas)
    exchange = stage.world.topology.reports_exchange(schema.workflow_id)
    stage.target = exchange
    body = b'{"state": "SUCCEEDED", "result": "' + b"x" * _OVERSIZED_BYTES + b'"}'
    _send(stage, exchange, "", body, codec.REPORT)
    return _parked(stage, exchange)


def _forged(stage: Stage) -> Evidence:
    """Reports of attempts that a stranger does not hold, and of ones that there never were."""
    world = stage.world
    found = world.progress.ask(
        "SELECT coalesce(json_agg(t), '[]') FROM (SELECT s.instance_id, s.name, s.attempt, r.workflow_id"
        " FROM fuseline_steps s JOIN fuseline_runs r USING (instance_id)"
        " WHERE s.status = 'RUNNING' ORDER BY random() LIMIT 5) t"
    )
    running = [] if found is None else found[0]
    for one in running:
        attempt = one["attempt"] + stage.random.choice((0, 0, 1, 3))
        _report(stage, one["workflow_id"], one["workflow_id"], one["instance_id"], one["name"], attempt)
    if acknowledged := world.dispatcher.acknowledged:
        any_run = stage.random.choice(acknowledged)
        _report(stage, world.schemas[0].workflow_id, world.schemas[0].workflow_id, any_run, "no such step", 1)
    _report(stage, world.schemas[0].workflow_id, world.schemas[0].workflow_id, "no-such-run", "s0", 1)
    count = len(running) + 2
    return lambda: (
        f"{count} forged reports consumed"
        if world.taps.is_empty(world.topology.reports_queue, 15.0)
        else None
    )


def _forged_exchange(stage: Stage) -> Evidence:
    """What one workflow's workers may write to carries a report about another one's run."""
    world = stage.world
    found = world.progress.ask(
        "SELECT json_build_array(s.instance_id, s.name, s.attempt, r.workflow_id)"
        " FROM fuseline_steps s JOIN fuseline_runs r USING (instance_id)"
        " WHERE s.status IN ('RUNNING', 'QUEUED') ORDER BY random() LIMIT 1"
    )
    if found is None:
        return lambda: None
    run, name, attempt, workflow_id = found[0]
    other = stage.random.choice([one.workflow_id for one in world.schemas if one.workflow_id != workflow_id])
    said = stage.random.choice((workflow_id, other))
    _report(stage, other, said, run, name, attempt)
    return lambda: "consumed" if world.taps.is_empty(world.topology.reports_queue, 15.0) else None


def _report(stage: Stage, through: str, workflow_id: str, run: str, name: str, attempt: int) -> None:
    body: dict[str, Any] = {
        "workflow_id": workflow_id,
        "instance_id": run,
        "step_name": name,
        "state": "SUCCEEDED",
        "result": FORGED,
        "attempt": attempt,
        "worker_id": "a-stranger",
    }
    stage.target = f"{run}/{name}"
    exchange = stage.world.topology.reports_exchange(through)
    _send(stage, exchange, "", json.dumps(body).encode(), codec.REPORT)


def _replayed(stage: Stage) -> Evidence:
    """Copies of reports and claims that came lately, in any order, some of them twice."""
    world = stage.world
    copies = world.taps.take_copies()
    stage.random.shuffle(copies)
    copies = copies[:25] + copies[:5]
    world.taps.publish_all([(exchange, "", body, properties) for exchange, body, properties in copies])
    stage.target = f"{len(copies)} messages"
    return lambda: (
        f"{len(copies)} copies consumed"
        if copies and world.taps.is_empty(world.topology.reports_queue, 15.0)
        else None
    )


def _strange_run(stage: Stage) -> Evidence:
    """An assignment of a run that there never was, which a worker may execute, and nobody may record."""
    world = stage.world
    schema = stage.random.choice(world.schemas)
    (first, *_) = schema.starting_steps()
    run = f"strange-{secrets.token_hex(6)}"
    world.history.write("injected", mark=run)
    body = {
        "workflow_id": schema.workflow_id,
        "workflow_version": schema.version,
        "instance_id": run,
        "step_name": first,
        "attempt": 1,
        "payload": {"workflow_inputs": {"scripts": draw_scripts(stage.random, schema)}, "results": {}},
        "assigned_at": 0,
        "expires_at": 0,
    }
    topology = world.topology
    stage.target = topology.steps_queue(schema.workflow_id, schema.version)
    key = topology.steps_key(schema.workflow_id, schema.version)
    _send(stage, topology.steps_exchange, key, json.dumps(body).encode(), codec.ASSIGNMENT)
    return lambda: "consumed" if world.taps.is_empty(stage.target, 15.0) else None


FAULTS = [
    Fault("undecodable reports", _undecodable_report, 2),
    Fault("undecodable assignments", _undecodable_assignment, 2),
    Fault("undecodable commands", _undecodable_command, 1),
    Fault("oversized report", _oversized, 1),
    Fault("forged reports", _forged, 2),
    Fault("report through another workflow's exchange", _forged_exchange, 2),
    Fault("forged assignment", _strange_run, 1),
    Fault("replayed reports and claims", _replayed, 3),
]
