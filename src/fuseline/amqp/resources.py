"""What can be declared on RabbitMQ, as plain frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeAlias

ExchangeKind: TypeAlias = Literal["direct", "fanout", "topic"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    kind: ExchangeKind

    def __str__(self) -> str:
        return f"exchange {self.name!r}"


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue that stays. `arguments` must be the same in every declaration for ever (else: 406)."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"queue {self.name!r}"


@dataclass(frozen=True, slots=True)
class Binding:
    """Messages of exchange `source` with `key` go to queue `queue`. Fanout exchanges ignore the key."""

    source: str
    queue: str
    key: str = ""

    def __str__(self) -> str:
        return f"binding {self.source!r} -> {self.queue!r} (key {self.key!r})"


Resource: TypeAlias = Exchange | Queue | Binding


@dataclass(frozen=True, slots=True)
class PrivateQueue:
    """A queue that one consumer makes for itself and that goes with its connection (exclusive, auto-delete).

    A random ending is added to `name` at each declaration: after a network failure the server may keep the old
    connection's queue for a minute, and a second declaration of that very name would be refused meanwhile (405).
    `bindings` are (exchange, key). Needs the configure, write and read permission for names that begin with `name`.
    """

    name: str
    bindings: tuple[tuple[str, str], ...]
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Policy:
    """A RabbitMQ policy: what an operator may change while everything runs."""

    name: str
    pattern: str
    definition: Mapping[str, Any] = field(hash=False)
    apply_to: str = "queues"


class Finding(StrEnum):
    """What `verify` found out about one resource."""

    OK = "ok"
    MISSING = "missing"
    DIFFERS = "differs"
    UNKNOWN = "unknown"  # it cannot be asked for, or this user may not ask


@dataclass(frozen=True, slots=True)
class Verdict:
    """One resource as it is on the server. `detail` is the server's own text, or why nothing is known."""

    resource: Resource
    finding: Finding
    detail: str = ""


@dataclass(frozen=True, slots=True)
class QueueCount:
    """Messages that are ready (not those held unacknowledged) and consumers, as the server counts them now."""

    messages: int
    consumers: int
