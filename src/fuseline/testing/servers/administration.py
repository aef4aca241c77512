"""What an operator does to a RabbitMQ node, as methods: each is one `rabbitmqctl`, of about a second."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

Alarm: TypeAlias = Literal["memory", "disk"]
"""Which resource of a node is scarce: publishers are blocked, on all nodes of a cluster."""

_SET_ALARM: Final[dict[Alarm, tuple[str, str]]] = {
    "memory": ("set_vm_memory_high_watermark", "0.0001"),
    # More than any disk has free, in bytes.
    "disk": ("set_disk_free_limit", str(10**18)),
}
# RabbitMQ's own values up to 3.13; the watermark of 4.x is higher still.
_CLEAR_ALARM: Final[dict[Alarm, tuple[str, str]]] = {
    "memory": ("set_vm_memory_high_watermark", "0.4"),
    "disk": ("set_disk_free_limit", str(50_000_000)),
}
_QUEUE_COLUMNS: Final = (
    "name",
    "type",
    "messages_ready",
    "messages_unacknowledged",
    "consumers",
    "leader",
    "state",
)
_CONNECTION_COLUMNS: Final = ("client_properties", "user", "port", "peer_port", "state", "channels")


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue, as RabbitMQ lists it. `leader` is a node's name (quorum queues), "" where there is none."""

    name: str
    kind: str
    ready: int
    unacknowledged: int
    consumers: int
    leader: str
    state: str


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """A client's connection; `name` is what the client calls it, `port` that of the node, `peer_port` the client's."""

    name: str
    user: str
    port: int
    peer_port: int
    state: str
    channels: int


class Administration(ABC):
    """The operator's commands. Each raises `RuntimeError` with what `rabbitmqctl` said where it fails."""

    @abstractmethod
    def rabbitmqctl(self, *arguments: str, timeout_seconds: float = 60) -> str:
        """Run `rabbitmqctl` and return what it printed."""

    def ctl(self, *arguments: str) -> str:
        """The same as `rabbitmqctl`."""
        return self.rabbitmqctl(*arguments)

    def stop_app(self) -> None:
        """Stop RabbitMQ inside its process: clients are cut off, and queues lose this member."""
        self.rabbitmqctl("stop_app")

    def start_app(self) -> None:
        """Start it again, and return when clients are served."""
        self.rabbitmqctl("start_app", timeout_seconds=120)

    def set_alarm(self, resource: Alarm) -> None:
        """Make memory or disk space look scarce: whoever publishes is blocked."""
        self.rabbitmqctl(*_SET_ALARM[resource])

    def clear_alarm(self, resource: Alarm) -> None:
        """The end of `set_alarm`."""
        self.rabbitmqctl(*_CLEAR_ALARM[resource])

    def close_all_connections(self, reason: str = "closed by a test") -> None:
        """Close the connection of every client of this node; they are told `reason`."""
        self.rabbitmqctl("close_all_connections", "--global", reason)

    def delete_queue(self, name: str, virtual_host: str = "/") -> None:
        """Delete a queue with what is in it."""
        self.rabbitmqctl("delete_queue", "--vhost", virtual_host, name)

    def purge_queue(self, name: str, virtual_host: str = "/") -> None:
        """Remove the messages that are ready, not those that somebody holds."""
        self.rabbitmqctl("purge_queue", "--vhost", virtual_host, name)

    def queues(self, virtual_host: str = "/") -> list[QueueStatus]:
        """All queues of a virtual host. Counts of quorum queues are up to 5 s old."""
        rows = self._listed("list_queues", "--vhost", virtual_host, *_QUEUE_COLUMNS)
        return [
            QueueStatus(
                name=row["name"],
                kind=row["type"],
                ready=int(row["messages_ready"] or 0),
                unacknowledged=int(row["messages_unacknowledged"] or 0),
                consumers=int(row["consumers"] or 0),
                leader=row["leader"] or "",
                state=row["state"] or "",
            )
            for row in rows
        ]

    def connections(self) -> list[ConnectionStatus]:
        """All clients' connections, those at other nodes of a cluster too."""
        return [
            ConnectionStatus(
                name=_name_in(row["client_properties"] or []),
                user=row["user"] or "",
                port=int(row["port"] or 0),
                peer_port=int(row["peer_port"] or 0),
                state=row["state"] or "",
                channels=int(row["channels"] or 0),
            )
            for row in self._listed("list_connections", *_CONNECTION_COLUMNS)
        ]

    def _listed(self, *arguments: str) -> list[dict[str, Any]]:
        said = self.rabbitmqctl("--quiet", "--formatter", "json", *arguments)
        rows: list[dict[str, Any]] = json.loads(said)
        return rows


def _name_in(properties: list[list[Any]]) -> str:
    """The client's name for a connection: properties are listed as [key, type, value]."""
    return next((str(value) for key, _, value in properties if key == "connection_name"), "")
