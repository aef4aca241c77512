"""The topology as RabbitMQ's definitions file: for `rabbitmqctl import_definitions` and `load_definitions`.

Rights are given so that a stolen password costs as little as can be (see `topology` for what they rest on).

| role | may |
| --- | --- |
| deployer | declare, bind, purge and read everything under the prefix |
| coordinator | the same, and answer requests (`amq.default`: direct reply-to) |
| worker | take steps of its workflows, report for them, beat, ask as a worker; declare nothing |
| dispatcher | send commands |
| service | what dispatchers and workers of all workflows may, and watch events: the HTTP service |
| observer | watch events through queues of its own |
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from fuseline.amqp.resources import Binding, Exchange, Queue, Resource
from fuseline.amqp.topology import Topology, encode_part

NOTHING = "^$"


class Role(StrEnum):
    """What an account is for."""

    DEPLOYER = "deployer"
    COORDINATOR = "coordinator"
    WORKER = "worker"
    DISPATCHER = "dispatcher"
    SERVICE = "service"
    OBSERVER = "observer"


@dataclass(frozen=True, slots=True)
class Account:
    """A RabbitMQ user. `workflows` are the workflow ids of a worker or observer; None is all.

    Without a `password_hash` nobody can log in with a password until `rabbitmqctl change_password` sets one.
    """

    name: str
    role: Role
    workflows: tuple[str, ...] | None = None
    password_hash: str = ""


class Rights(NamedTuple):
    """RabbitMQ's three patterns for one user in one virtual host."""

    configure: str
    write: str
    read: str


def default_accounts(topology: Topology) -> list[Account]:
    """One account for each role, named `<prefix>-<role>`, without passwords."""
    return [Account(f"{topology.prefix}-{role}", role) for role in Role]


def password_hash(password: str, salt: bytes) -> str:
    """The `password_hash` of a definitions file (SHA-256); `salt` is 4 random bytes."""
    if len(salt) != 4:
        raise ValueError(f"the salt has {len(salt)} bytes, not 4")
    digest = hashlib.sha256(salt + password.encode()).digest()
    return base64.b64encode(salt + digest).decode()


def rights(topology: Topology, account: Account) -> Rights:
    """What `account` may configure, write and read."""
    prefix = re.escape(topology.prefix)
    everything = rf"^{prefix}\..+$"
    steps = rf"steps\.{_any_of(account.workflows)}\..+"
    reports = rf"reports\.{_any_of(account.workflows)}"
    own = rf"{re.escape(topology.observers_queue(account.name))}\..+"
    match account.role:
        case Role.DEPLOYER:
            return Rights(everything, everything, everything)
        case Role.COORDINATOR:
            return Rights(everything, rf"^(amq\.default|{prefix}\..+)$", everything)
        case Role.WORKER:
            return Rights(
                NOTHING, rf"^{prefix}\.({reports}|heartbeats|commands\.worker)$", rf"^{prefix}\.{steps}$"
            )
        case Role.DISPATCHER:
            return Rights(NOTHING, rf"^{prefix}\.commands$", NOTHING)
        case Role.SERVICE:
            return Rights(
                rf"^{own}$",
                rf"^({prefix}\.({reports}|heartbeats|commands|commands\.worker)|{own})$",
                rf"^({prefix}\.({steps}|events)|{own})$",
            )
        case Role.OBSERVER:
            return Rights(rf"^{own}$", rf"^{own}$", rf"^({prefix}\.events|{own})$")


def definitions(
    topology: Topology,
    *,
    workflows: Iterable[tuple[str, str]] = (),
    accounts: Sequence[Account] | None = None,
    virtual_host: str = "/",
) -> dict[str, Any]:
    """The definitions as JSON data: everything of `topology`, of the (workflow_id, version) pairs, and the accounts.

    The order is stable, so that two exports can be compared.
    """
    if accounts is None:
        accounts = default_accounts(topology)
    resources = topology.base_resources()
    for workflow_id, version in sorted(set(workflows)):
        resources += [
            one for one in topology.workflow_resources(workflow_id, version) if one not in resources
        ]
    return {
        "vhosts": [{"name": virtual_host}],
        "users": [
            {
                "name": account.name,
                "password_hash": account.password_hash,
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": [],
            }
            for account in accounts
        ],
        "permissions": [
            {"user": account.name, "vhost": virtual_host, **rights(topology, account)._asdict()}
            for account in accounts
        ],
        "topic_permissions": [
            {
                "user": account.name,
                "vhost": virtual_host,
                "exchange": topology.events_exchange,
                "write": NOTHING,
                "read": rf"^{_any_of(account.workflows)}\.",
            }
            for account in accounts
            if account.role is Role.OBSERVER
        ],
        "exchanges": _of(resources, Exchange, virtual_host),
        "queues": _of(resources, Queue, virtual_host),
        "bindings": _of(resources, Binding, virtual_host),
        "policies": [
            {
                "vhost": virtual_host,
                "name": policy.name,
                "pattern": policy.pattern,
                "apply-to": policy.apply_to,
                "definition": dict(policy.definition),
                "priority": 0,
            }
            for policy in topology.policies()
        ],
    }


def _any_of(workflows: tuple[str, ...] | None) -> str:
    if workflows is None:
        return r"[^.]+"
    if not workflows:
        return "(?!)"  # matches nothing
    return f"({'|'.join(re.escape(encode_part(one)) for one in workflows)})"


def _of(
    resources: Sequence[Resource], kind: type[Exchange | Queue | Binding], virtual_host: str
) -> list[dict[str, Any]]:
    return [
        {"vhost": virtual_host, **_definition(resource)}
        for resource in resources
        if isinstance(resource, kind)
    ]


def _definition(resource: Resource) -> dict[str, Any]:
    match resource:
        case Exchange(name, kind):
            return {
                "name": name,
                "type": kind,
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
        case Queue(name, arguments):
            return {"name": name, "durable": True, "auto_delete": False, "arguments": dict(arguments)}
        case Binding(source, queue, key):
            return {
                "source": source,
                "destination": queue,
                "destination_type": "queue",
                "routing_key": key,
                "arguments": {},
            }
