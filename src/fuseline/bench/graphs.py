"""Graphs of steps by number: what the floor executes, and what `flows` makes workflows of."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Graph:
    """Step 0 begins. `successors` of each step; `requires` says how many finished steps each waits for."""

    successors: Sequence[Sequence[int]]
    requires: Sequence[int]

    def __len__(self) -> int:
        return len(self.successors)


def chain(length: int) -> Graph:
    """One step after the other."""
    return Graph([*([step + 1] for step in range(length - 1)), []], [0] + [1] * (length - 1))


def fan(width: int) -> Graph:
    """One step, `width` parallel ones, and one that joins them."""
    last = width + 1
    return Graph([range(1, last), *([last] for _ in range(width)), []], [0] + [1] * width + [width])


class Role(Enum):
    """What a step of a random graph does."""

    PLAIN = "plain"
    CHOOSES = "chooses"  # between the two steps after it
    LEFT = "left"
    RIGHT = "right"
    EITHER = "either"  # goes on when one of the two has finished


@dataclass(frozen=True, slots=True)
class Node:
    """A step of a random graph, and the steps whose results it reads (of `EITHER`: one of the two)."""

    role: Role
    reads: tuple[int, ...]


MAX_READS = 3
NEAR = 8
CHOICES_OF_TEN = 2


@dataclass(frozen=True)
class RandomGraph:
    """A graph of `size` steps with branches and joins, the same for the same `seed`."""

    size: int
    seed: int
    nodes: list[Node] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", _random_nodes(self.size, random.Random(self.seed)))

    @cached_property
    def taken(self) -> Graph:
        """What is left of it when each choice is made (here for the left one): as many steps as a run executes."""
        kept = [number for number, node in enumerate(self.nodes) if node.role is not Role.RIGHT]
        place = {number: index for index, number in enumerate(kept)}
        successors: list[list[int]] = [[] for _ in kept]
        requires = []
        for number in kept:
            reads = [place[one] for one in self.nodes[number].reads if one in place]
            requires.append(len(reads))
            for one in reads:
                successors[one].append(place[number])
        return Graph(successors, requires)

    @property
    def sinks(self) -> list[int]:
        """Steps that nobody reads."""
        read = {one for node in self.nodes for one in node.reads}
        return [number for number in range(self.size) if number not in read]


def _random_nodes(size: int, chance: random.Random) -> list[Node]:
    nodes = [Node(Role.PLAIN, ())]
    readable = [0]
    while len(nodes) < size:
        near = readable[-NEAR:]
        number = len(nodes)
        if size - number >= 4 and chance.randrange(10) < CHOICES_OF_TEN:
            nodes += [
                Node(Role.CHOOSES, (chance.choice(near),)),
                Node(Role.LEFT, (number,)),
                Node(Role.RIGHT, (number,)),
                Node(Role.EITHER, (number + 1, number + 2)),
            ]
        else:
            count = min(len(near), chance.choice((1, 1, 2, MAX_READS)))
            nodes.append(Node(Role.PLAIN, tuple(sorted(chance.sample(near, count)))))
        readable.append(len(nodes) - 1)
    return nodes


FAILING_PERCENT = 5


def goes_left(run: int, step: int) -> bool:
    """What step `step` of run `run` chooses."""
    return bool(zlib.crc32(f"choose {run} {step}".encode()) & 1)


def fails_first(run: int, step: int) -> bool:
    """Whether the first attempt of step `step` of run `run` fails: of one step in twenty."""
    return zlib.crc32(f"fail {run} {step}".encode()) % 100 < FAILING_PERCENT
