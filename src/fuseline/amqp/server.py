"""What the server at the other end is and can do, from what it says when a connection opens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

OLDEST_SUPPORTED = (3, 10)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Product and version of a server. `version_parts` is what comparisons use: (3, 10, 8), () if it says nothing."""

    product: str
    version: str
    cluster_name: str = ""

    @classmethod
    def from_properties(cls, properties: Mapping[str, Any] | None) -> Self:
        """Read the server properties of an open connection."""

        def text(name: str) -> str:
            value = (properties or {}).get(name, "")
            return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

        return cls(text("product"), text("version"), text("cluster_name"))

    @property
    def version_parts(self) -> tuple[int, ...]:
        """The leading numbers of the version: (4, 0, 0) for `4.0.0-beta.5`."""
        found = re.match(r"\d+(?:\.\d+)*", self.version)
        return tuple(int(part) for part in found.group().split(".")) if found else ()

    def at_least(self, *version: int) -> bool:
        """Whether it is RabbitMQ in this version or a later one."""
        return self.product == "RabbitMQ" and self.version_parts >= version

    @property
    def supported(self) -> bool:
        """Whether this software was made for it: RabbitMQ 3.10 or later."""
        return self.at_least(*OLDEST_SUPPORTED)

    @property
    def consumer_timeout_argument(self) -> bool:
        """`x-consumer-timeout` of a consumer counts (before, only the node's setting and policies do)."""
        return self.at_least(4, 3)

    @property
    def consumer_timeout_cancels(self) -> bool:
        """A delivery that is held too long costs the consumer, not the channel."""
        return self.at_least(4, 3)

    @property
    def delivery_limit_by_default(self) -> bool:
        """Quorum queues have a delivery limit without asking for one."""
        return self.at_least(4, 0)

    @property
    def quorum_priorities(self) -> bool:
        """Quorum queues heed the priority of messages."""
        return self.at_least(4, 0)

    @property
    def passive_declare_needs_permission(self) -> bool:
        """Asking whether a queue exists needs some permission for it."""
        return self.at_least(4, 3)

    def __str__(self) -> str:
        return f"{self.product or 'unknown server'} {self.version}".rstrip()
