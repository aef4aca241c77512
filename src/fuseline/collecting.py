"""Python's search for cycles of garbage, in a process that is to run for long."""

from __future__ import annotations

import gc
from typing import Final

NEW_OBJECTS: Final = 5_000
"""More of them than Python's 700 begin a search."""
MANY_NEW_OBJECTS: Final = 50_000
"""The same where nobody else's code runs, that could leave large things in cycles."""
SEARCHES: Final = 20
"""So many of new objects come before one that looks at those that outlived them too, and so on."""


def keep_what_is_loaded() -> None:
    """Have what is there now (modules, models, workflows) looked at no more.

    A full search looks at every object of the process: 40 ms each time with all that is imported here, in which no
    heartbeat is sent and no step goes on, and a fifth of a busy worker's time in all. For a program, as it begins; in
    somebody else's process it would be a surprise.
    """
    gc.collect()
    gc.freeze()


def search_seldom(new_objects: int = NEW_OBJECTS) -> None:
    """Have new objects searched less often. For a program that makes few cycles, as a coordinator, or as a worker: what the
    bodies of its steps leave in cycles is found all the same, a few thousand objects later.

    What a search finds in a wide fan-out is alive: every assignment waits for its confirm. With Python's own thresholds
    five or six full searches of them were a quarter of what deciding and publishing cost. In a batch of a coordinator, too,
    nearly all is alive until its end: ten times as many `new_objects` take an eighth off what it costs.
    """
    gc.set_threshold(new_objects, SEARCHES, 10)
