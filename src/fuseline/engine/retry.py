"""Whether and when a failed attempt is tried again. Pure: jitter comes from the attempt's own identity."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fuseline.errors import InvalidSchemaError
from fuseline.model.schema import PolicySpec

# Back-off beyond this is a mistake in the configuration.
MAX_WAIT_SECONDS = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class RetryRule:
    """`RetryPolicy` as the engine reads it. `max_attempts` counts attempts in all, the first included."""

    max_attempts: int
    wait_seconds: float = 0.0
    backoff: float = 1.0
    max_wait_seconds: float = MAX_WAIT_SECONDS
    jitter: float = 0.0
    retry_on: frozenset[str] = frozenset()
    no_retry_on: frozenset[str] = frozenset()

    @classmethod
    def from_policies(cls, policies: Sequence[PolicySpec], where: str) -> RetryRule | None:
        """The last `retry` policy of a step; None without one. Raises `InvalidSchemaError` naming the field."""
        rule = None
        for policy in policies:
            if policy.name == "retry":
                rule = cls._from_config(policy.config, where)
        return rule

    @classmethod
    def _from_config(cls, config: dict[str, Any], where: str) -> RetryRule:
        def number(key: str, default: float, low: float, high: float) -> float:
            value = config.get(key)
            value = default if value is None else value
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise InvalidSchemaError(
                    f"{where}: retry policy needs {low} <= {key} <= {high}, not {value!r}"
                )
            return float(value)

        def names(key: str) -> frozenset[str]:
            value = config.get(key) or []
            if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                raise InvalidSchemaError(
                    f"{where}: retry policy needs {key} as a list of class names, not {value!r}"
                )
            return frozenset(value)

        return cls(
            max_attempts=int(number("max_retries", 3, 1, 1_000_000)),
            wait_seconds=number("wait", 0.0, 0.0, MAX_WAIT_SECONDS),
            backoff=number("backoff", 1.0, 1.0, 1000.0),
            max_wait_seconds=number("max_wait", MAX_WAIT_SECONDS, 0.0, MAX_WAIT_SECONDS),
            jitter=number("jitter", 0.0, 0.0, 1.0),
            retry_on=names("retry_on"),
            no_retry_on=names("no_retry_on"),
        )

    def delay_after(self, failures: int, types: Sequence[str], identity: str) -> float | None:
        """Seconds until the next attempt after the `failures`-th failure, an error of these classes; None: no more."""
        if failures >= self.max_attempts or not self.applies_to(types):
            return None
        return self.delay_seconds(failures, identity)

    def applies_to(self, types: Sequence[str]) -> bool:
        """True when an error with these class names (most special first) may be retried."""
        if self.no_retry_on.intersection(types):
            return False
        return not self.retry_on or bool(self.retry_on.intersection(types))

    def delay_seconds(self, failures: int, identity: str) -> float:
        """Wait before the attempt that follows the `failures`-th failure: exponential, capped, then jittered.

        Jitter takes up to that share off the wait, spread by a hash of `identity`, so that the same event always gives
        the same decision and a herd of failures still spreads.
        """
        try:
            wait = min(self.wait_seconds * self.backoff ** (failures - 1), self.max_wait_seconds)
        except OverflowError:
            wait = self.max_wait_seconds if self.wait_seconds else 0.0
        return wait * (1.0 - self.jitter * spread(identity)) if self.jitter else wait


def spread(identity: str) -> float:
    """A number in [0, 1) that depends on `identity` alone."""
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=4).digest(), "big") / 2**32
