"""Which workflow versions have their queue and exchange on RabbitMQ, as far as this connection knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fuseline.amqp.link import Link
from fuseline.amqp.topology import Topology
from fuseline.errors import FuselineError

DECLARE_SECONDS = 30.0

Key = tuple[str, str]
Then = Callable[[FuselineError | None], None]


class Declared:
    """Declares on demand. What exists is left as it is, so declaring once too often does nothing."""

    def __init__(self, link: Link, topology: Topology) -> None:
        self._link = link
        self._topology = topology
        self._keys: set[Key] = set()
        self._under_way: dict[Key, list[Then]] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def forget(self) -> None:
        """The server may be another one, or have lost what it had."""
        self._keys.clear()

    def declare_base(self, keys: Iterable[Key], then: Then) -> None:
        """What every installation has, and the given workflow versions."""
        keys = set(keys)
        resources = self._topology.base_resources()
        for key in sorted(keys):
            resources += self._topology.workflow_resources(*key)

        def declared(error: FuselineError | None) -> None:
            if error is None:
                self._keys |= keys
            then(error)

        self._link.declare(resources, declared, deadline_seconds=DECLARE_SECONDS)

    def ensure(self, key: Key, then: Then) -> None:
        """Call `then` when the version's resources exist, with the error when they cannot."""
        if key in self._keys:
            then(None)
        else:
            self.again(key, then)

    def again(self, key: Key, then: Then) -> None:
        """Declare although it was declared before: a queue was deleted.

        Once for all who ask meanwhile: each declaration takes a channel, and thousands of assignments may come back at once.
        """
        self._keys.discard(key)
        waiting = self._under_way.setdefault(key, [])
        waiting.append(then)
        if len(waiting) > 1:
            return

        def declared(error: FuselineError | None) -> None:
            if error is None:
                self._keys.add(key)
            for one in self._under_way.pop(key):
                one(error)

        self._link.declare(
            self._topology.workflow_resources(*key), declared, deadline_seconds=DECLARE_SECONDS
        )

    def again_all(self, keys: Iterable[Key], then: Then) -> None:
        """`again` for several, one after the other."""
        remaining = list(keys)

        def next_one(error: FuselineError | None) -> None:
            if error is not None or not remaining:
                then(error)
            else:
                self.again(remaining.pop(), next_one)

        next_one(None)
