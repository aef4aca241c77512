"""What every fault has: a kind, how it is done, and how one sees afterwards that it was felt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, TypeAlias

from tests.fault.options import Topology
from tests.fault.processes import Party, Role

if TYPE_CHECKING:
    from tests.fault.world import World

Evidence: TypeAlias = Callable[[], str | None]
"""Asked after the recovery: what shows that the fault was felt; None when nothing does."""

AWAY: Final = r"RabbitMQ is away|no connection to RabbitMQ"
STORAGE_AWAY: Final = r"storage is away"
PARKED: Final = r"parked a message"


@dataclass
class Stage:
    """What a fault works on: the world, chance, and the logs from where they stood when it began."""

    world: World
    random: Random
    is_over: Callable[[float], bool]
    """Waits so many seconds; true when the harness is told to stop meanwhile."""
    marks: dict[Path, int] = field(default_factory=dict)
    seq: int = 0
    target: str = ""

    def begin(self) -> None:
        """Remember where logs and database stand."""
        self.marks = self.world.logs.mark()
        self.seq = self.world.progress.last()
        self.target = ""

    def hold(self, low: float, high: float) -> None:
        """Let the fault last."""
        self.is_over(self.random.uniform(low, high))

    def party(self, role: Role) -> Party:
        """One of the parties, at random; noted as the fault's target."""
        party = self.random.choice([one for one in self.world.parties if one.role == role])
        self.target = party.name
        return party

    def logged(self, pattern: str, seconds: float = 2.0) -> Evidence:
        """Evidence: some party logged it since the fault began."""
        return lambda: self.world.logs.wait(self.marks, pattern, seconds)

    def losses(self) -> str | None:
        """Evidence: attempts whose holder was given up since the fault began."""
        found = self.world.progress.ask(
            "SELECT count(DISTINCT (instance_id, name)) FROM fault_audit n WHERE seq > %s"
            " AND what = 'fuseline_steps' AND (body->>'losses')::int > coalesce((SELECT max((body->>'losses')::int)"
            " FROM fault_audit o WHERE o.what = 'fuseline_steps' AND o.seq <= %s"
            " AND o.instance_id = n.instance_id AND o.name = n.name), 0)",
            self.seq,
            self.seq,
        )
        return f"{found[0]} attempts lost their holder" if found is not None and found[0] else None


@dataclass(frozen=True, slots=True)
class Fault:
    """`act` does it, lets it last, ends it and returns the evidence. `weight`: how often, against others."""

    kind: str
    act: Callable[[Stage], Evidence]
    weight: int = 2
    topologies: tuple[Topology, ...] = ("single", "cluster")
    is_quick: bool = True
