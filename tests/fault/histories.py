"""Histories to doctor: one run as it should be, row by row, and what makes more of them."""

from __future__ import annotations

import json
from typing import Any

from fuseline.testing.flows import graph
from tests.fault.audit import Change
from tests.fault.checker.facts import Asked, Facts, Letter

RUN = "r1"
BEGAN, ENDED = 100.0, 110.0


def step(name: str, status: str, **more: Any) -> dict[str, Any]:
    """A row of a step as the table has it."""
    is_open = status in ("PENDING", "QUEUED", "RUNNING")
    done = status == "SUCCEEDED"
    row = {
        "instance_id": RUN,
        "name": name,
        "status": status,
        "attempt": 1,
        "failures": 0,
        "losses": 0,
        "holder": "worker" if status != "QUEUED" else None,
        "queued_at": BEGAN,
        "started_at": BEGAN,
        "finished_at": None if is_open else ENDED,
        "due_at": ENDED if is_open else None,
        "action": "default" if done else None,
        "result": json.dumps({"nonce": f"n-{name}", "skips": []}) if done else None,
        "error": None,
    }
    return row | more


def run(status: str, **more: Any) -> dict[str, Any]:
    """A row of the run."""
    is_open = status == "RUNNING"
    row = {
        "instance_id": RUN,
        "workflow_id": "w",
        "version": "1",
        "status": status,
        "created_at": BEGAN,
        "open_steps": 2 if is_open else 0,
        "failed_step": None,
        "error": None,
        "due_at": None,
        "finished_at": None if is_open else ENDED,
    }
    return row | more


def join(unresolved: int, *, fired: bool) -> dict[str, Any]:
    """A row of the join of `b`."""
    return {"instance_id": RUN, "name": "b", "unresolved": unresolved, "met": 2 - unresolved, "fired": fired}


def execution(what: str, name: str, at: float, **more: Any) -> dict[str, Any]:
    """A line of an execution log."""
    line: dict[str, Any] = {
        "what": what,
        "run": RUN,
        "step": name,
        "attempt": 1,
        "nonce": f"n-{name}",
        "at": at,
        "pid": 1,
    }
    line[{"start": "seen", "end": "outcome"}[what]] = {} if what == "start" else "succeeded"
    return line | more


def clean() -> Facts:
    """One run of `a` and `c`, which join in `b`, as it should be."""
    commits: list[list[tuple[str, dict[str, Any]]]] = [
        [("runs", run("RUNNING")), ("steps", step("a", "QUEUED")), ("steps", step("c", "QUEUED"))],
        [("steps", step("a", "RUNNING"))],
        [("steps", step("a", "SUCCEEDED")), ("joins", join(1, fired=False))],
        [
            ("steps", step("c", "SUCCEEDED")),
            ("joins", join(0, fired=True)),
            ("steps", step("b", "QUEUED")),
        ],
        [("steps", step("b", "SUCCEEDED")), ("runs", run("SUCCEEDED"))],
    ]
    changes = [
        Change(0, BEGAN + tx, tx, table, "UPDATE", RUN, body.get("name"), body)
        for tx, commit in enumerate(commits)
        for table, body in commit
    ]
    final = {body["name"]: body for commit in commits for table, body in commit if table == "steps"}
    return Facts(
        definitions={"w": graph("w", {"a": ["b"], "c": ["b"]}, outputs=["b"])},
        asked={RUN: Asked("w", {"scripts": {}}, "acknowledged")},
        changes=changes,
        runs=[run("SUCCEEDED")],
        steps=list(final.values()),
        executions=[
            execution("start", "a", BEGAN + 0.5),
            execution("end", "a", BEGAN + 0.6),
            execution("start", "c", BEGAN + 0.5),
            execution("end", "c", BEGAN + 0.6),
            execution("start", "b", BEGAN + 3.5, seen={"a": "n-a", "c": "n-c"}),
            execution("end", "b", BEGAN + 3.6),
        ],
        last_fault_at=BEGAN,
        within_seconds=60.0,
        queues={"fault.reports": 0, "fault.parked": 1},
        parked=[Letter("adversary-1", "not JSON", b"{")],
        injected={"adversary-1"},
        leases={"worker": []},
        views={
            RUN: {
                "state": "SUCCEEDED",
                "steps": {
                    name: {
                        "state": "SUCCEEDED",
                        "attempt": 1,
                        "result": json.loads(row["result"]),
                        "action": "default",
                    }
                    for name, row in final.items()
                },
            }
        },
        events=[{"instance_id": RUN, "kind": "workflow_finished", "state": "SUCCEEDED", "step_name": None}],
    )


def letter(state: str, **more: Any) -> dict[str, Any]:
    """A row of the dead letter of `b`."""
    next_attempt = 2 if state == "replayed" else None
    return {
        "instance_id": RUN,
        "name": "b",
        "attempt": 1,
        "state": state,
        "next_attempt": next_attempt,
    } | more


def again(facts: Facts, table: str, body: dict[str, Any], op: str = "UPDATE") -> None:
    """One more change, after all others."""
    facts.changes.append(Change(0, ENDED, 99, table, op, RUN, body.get("name"), body))
