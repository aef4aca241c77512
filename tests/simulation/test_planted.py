"""The simulation can see: each known bug, planted into the real code, is found within 2,000 seeds."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from fuseline.coordinator.outbox import Outbox
from fuseline.model.messages import FailureDecision, PolicyDecision
from fuseline.model.schema import PolicySpec
from fuseline.testing.flows import graph
from fuseline.testing.simulation import PLANTS, first_failure
from fuseline.testing.simulation.workload import Script
from tests.simulation.harness import Stage

BROKEN = {
    "ack-before-commit": ("P4",),
    "ack-before-confirm": ("P4",),
    "join-counted-twice": ("P2", "P3"),
    "lease-never-expired": ("P1",),
    "lost-commit-forgotten": ("P1", "P4"),
    "memory-believed": ("P1", "P2", "P3", "P4", "P5", "P6"),
    "no-dead-path-elimination": ("P1",),
    "no-fencing": ("P2", "P3", "P5"),
    "no-outbox-on-redelivery": ("P4",),
    "republished-dead-letter": ("P6",),
    "stale-tags": ("P4", "P7"),
    "unfenced-fusion": ("P2", "P4", "P5"),
}
"""The promises that each of them breaks."""


def test_every_plant_is_tried() -> None:
    assert BROKEN.keys() == PLANTS.keys()


@pytest.mark.timeout(900)  # the rarest needs one seed in 250, and some machine does 250 of them a minute
@pytest.mark.parametrize("plant", sorted(BROKEN))
def test_a_planted_bug_is_found(plant: str, record_property: Callable[[str, object], None]) -> None:
    """With other seeds each time, so that it is not a lucky one that finds it."""
    base = secrets.randbelow(10**9)
    found = first_failure(range(base, base + 2000), plant)
    assert found is not None, f"seeds {base} to {base + 1999} pass with {plant} planted"
    count, result = found
    record_property("simulation", f"{plant}: found with seed {result.seed}, after {count} seeds")
    assert any(one.startswith(BROKEN[plant]) for one in result.violations), result.violations


@pytest.mark.parametrize("decision", [FailureDecision.FAIL, FailureDecision.SKIP])
def test_what_a_failure_made_ready_and_nobody_sent_is_missed(
    decision: FailureDecision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4: a report that a step failed answers for what follows, also when a policy has it recorded as skipped."""
    always = PolicySpec(name="trigger", config={"rule": "all_done"})
    script = Script(failures=1, decision=PolicyDecision(decision=decision, delay_seconds=0.0))
    stage = Stage(graph("w", {"a": ["b"]}, policies={"b": [always]}), {"a": script})
    stage.world.history.fault("planted: not sent", "c0")
    assign = Outbox.assign

    def forgetful(self: Outbox, outcome: Any, assignment: Any, on_done: Any) -> None:
        if assignment.step_name == "b" and not stage.is_let_go("r0/a/1/report"):
            on_done()
        else:
            assign(self, outcome, assignment, on_done)

    monkeypatch.setattr(Outbox, "assign", forgetful)
    (told,) = stage.violations()
    assert told.startswith("P4")
    assert told.endswith("let r0/a/1/report go before b, ready by it, was safe")
