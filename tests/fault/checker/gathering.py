"""Reads the facts of a world in which everything was healed and all runs should be over."""

from __future__ import annotations

import contextlib
import json
from random import Random
from typing import Any, Final

import pika

from fuseline.coordinator.decoding import death_reason
from fuseline.errors import RetryableError
from tests.fault import audit
from tests.fault.checker.facts import Facts, Letter, read_asked, read_executions
from tests.fault.checker.leaks import Usage, left_in_processes, left_on_rabbitmq, usages
from tests.fault.taps import DEAD, EVENTS
from tests.fault.world import World

VIEWS: Final = 150
"""Runs that the broker is asked about."""


def gather(world: World, last_fault_at: float, before: dict[str, Usage]) -> Facts:
    """All that the checker needs."""
    taps = world.taps
    for queue in taps.names():
        if queue != world.topology.parked_queue:
            taps.is_empty(queue, 15.0)
    leases = taps.leases(2.5)
    leaks = left_on_rabbitmq(world) + left_in_processes(before, usages(world.parties))
    tables = audit.read_tables(world.database_url)
    asked, marks = read_asked(world.history.path)
    return Facts(
        definitions={schema.workflow_id: schema for schema in world.schemas},
        asked=asked,
        changes=list(audit.read_changes(world.database_url)),
        runs=tables["runs"],
        steps=tables["steps"],
        executions=read_executions(world.executions_folder),
        last_fault_at=last_fault_at,
        within_seconds=world.options.within_seconds,
        letters=tables["dead_letters"],
        events=_events(world),
        queues=taps.counts(),
        dead=[_letter(properties, body) for _, properties, body in taps.take(DEAD)],
        parked=[_letter(properties, body) for _, properties, body in taps.take(world.topology.parked_queue)],
        injected=marks,
        leases=leases,
        views=_views(world, [row["instance_id"] for row in tables["runs"]]),
        leaks=leaks,
        complaints=world.complaints + world.supervisor.unexpected,
        fusion_hops=world.options.fusion_hops,
    )


def _events(world: World) -> list[dict[str, Any]]:
    found = []
    for _, properties, body in world.taps.take(EVENTS):
        if properties.type == "fuseline.event.v1":
            found.append(json.loads(body))
    return found


def _letter(properties: pika.BasicProperties, body: bytes) -> Letter:
    headers = properties.headers or {}
    reason = headers.get("x-fuseline-reason") or death_reason(headers) or "?"
    return Letter(properties.message_id, str(reason), body, str(headers.get("fault")))


def _views(world: World, runs: list[str]) -> dict[str, dict[str, Any]]:
    chosen = Random(world.options.seed).sample(runs, min(VIEWS, len(runs)))
    found = {}
    for run in chosen:
        with contextlib.suppress(RetryableError):
            found[run] = world.broker.get_run(run).model_dump(mode="json")
    if len(found) < len(chosen):
        world.complain(f"the broker answered for {len(found)} of {len(chosen)} runs, in peace")
    return found
