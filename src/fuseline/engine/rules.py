"""The numbers that every decision is made with; a deployment may set them, a run never changes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Times and limits that the engine applies.

    `lease_seconds`: how long a holder may be silent. `sweep_seconds`: how long a step may stay queued before somebody
    looks whether its message still exists, twice as long after each loss. `max_losses`: holders that an attempt chain
    may lose (killed, silent, never reporting) before the step fails as poison. `timeout_grace_seconds`: how long after
    a step's own execution timeout the broker waits for the worker's report of it before it decides alone.
    """

    lease_seconds: float = 60.0
    sweep_seconds: float = 120.0
    max_losses: int = 5
    timeout_grace_seconds: float = 5.0
