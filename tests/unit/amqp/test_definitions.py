"""The rights of each role, as patterns: what they let in and what they keep out."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from fuseline.amqp.definitions import Account, Role, default_accounts, definitions, password_hash, rights
from fuseline.amqp.topology import Topology

TOPOLOGY = Topology("pre")
# RabbitMQ checks the default exchange by this name.
NAMES = {
    "amq.default",
    "amq.topic",
    "pre.steps",
    "pre.reports.a",
    "pre.reports.a%2Eb",
    "pre.reports.ab",
    "pre.reports",
    "pre.commands",
    "pre.commands.worker",
    "pre.heartbeats",
    "pre.heartbeats.c1.0011",
    "pre.dead",
    "pre.parked",
    "pre.events",
    "pre.steps.a.1",
    "pre.steps.a%2Eb.1",
    "pre.steps.ab.1",
    "pre.observers.me.1",
    "pre.observers.you.1",
    "prefix.steps.a.1",
    "xpre.steps.a.1",
}


def allowed(pattern: str) -> set[str]:
    return {name for name in NAMES if re.search(pattern, name)}


def test_a_worker_of_one_workflow() -> None:
    mine = rights(TOPOLOGY, Account("w", Role.WORKER, ("a",)))
    assert allowed(mine.configure) == set()
    assert allowed(mine.write) == {"pre.reports.a", "pre.heartbeats", "pre.commands.worker"}
    assert allowed(mine.read) == {"pre.steps.a.1"}


def test_a_worker_of_a_workflow_with_a_dot() -> None:
    mine = rights(TOPOLOGY, Account("w", Role.WORKER, ("a.b", "ab")))
    assert allowed(mine.read) == {"pre.steps.a%2Eb.1", "pre.steps.ab.1"}
    assert allowed(mine.write) >= {"pre.reports.a%2Eb", "pre.reports.ab"}
    assert "pre.reports.a" not in allowed(mine.write)


def test_a_worker_of_no_workflow_has_no_workflow() -> None:
    mine = rights(TOPOLOGY, Account("w", Role.WORKER, ()))
    assert allowed(mine.read) == set()
    assert allowed(mine.write) == {"pre.heartbeats", "pre.commands.worker"}


def test_the_other_roles() -> None:
    def of(role: Role) -> list[set[str]]:
        return [allowed(pattern) for pattern in rights(TOPOLOGY, Account("me", role))]

    ours = {name for name in NAMES if name.startswith("pre.")}
    own = {"pre.observers.me.1"}
    reports = {"pre.reports.a", "pre.reports.a%2Eb", "pre.reports.ab"}
    steps = {"pre.steps.a.1", "pre.steps.a%2Eb.1", "pre.steps.ab.1"}
    assert of(Role.DEPLOYER) == [ours, ours, ours]
    assert of(Role.COORDINATOR) == [ours, ours | {"amq.default"}, ours]
    assert of(Role.WORKER) == [set(), reports | {"pre.heartbeats", "pre.commands.worker"}, steps]
    assert of(Role.DISPATCHER) == [set(), {"pre.commands"}, set()]
    assert of(Role.OBSERVER) == [own, own, own | {"pre.events"}]
    assert of(Role.SERVICE) == [
        own,
        own | reports | {"pre.heartbeats", "pre.commands", "pre.commands.worker"},
        own | steps | {"pre.events"},
    ]


def test_a_password_hash_is_what_rabbitmq_checks() -> None:
    salt = b"\x90\x8d\xc6\x0a"
    expected = base64.b64encode(salt + hashlib.sha256(salt + b"test12").digest()).decode()
    # The example of RabbitMQ's documentation on passwords.
    assert expected == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    assert password_hash("test12", salt) == expected
    with pytest.raises(ValueError, match="4"):
        password_hash("x", b"salty")


def test_the_default_accounts_cannot_log_in_until_they_get_a_password() -> None:
    accounts = default_accounts(TOPOLOGY)
    assert [account.name for account in accounts] == [f"pre-{role}" for role in Role]
    assert {account.password_hash for account in accounts} == {""}


def test_the_definitions_are_json_in_a_stable_order_and_complete() -> None:
    workflows = [("b", "1"), ("a", "2"), ("a", "1"), ("a", "1")]
    made = definitions(TOPOLOGY, workflows=workflows, virtual_host="v")
    assert json.dumps(made) == json.dumps(
        definitions(TOPOLOGY, workflows=reversed(workflows), virtual_host="v")
    )
    queues = [queue["name"] for queue in made["queues"]]
    assert queues[-3:] == ["pre.steps.a.1", "pre.steps.a.2", "pre.steps.b.1"]
    exchanges = [exchange["name"] for exchange in made["exchanges"]]
    assert len(exchanges) == len(set(exchanges))
    assert {binding["destination"] for binding in made["bindings"]} <= set(queues)
    assert {binding["source"] for binding in made["bindings"]} <= set(exchanges)
    everything = [one for part in made.values() for one in part if "vhost" in one]
    assert {one["vhost"] for one in everything} == {"v"}
    assert made["topic_permissions"] == [
        {"user": "pre-observer", "vhost": "v", "exchange": "pre.events", "write": "^$", "read": r"^[^.]+\."}
    ]
