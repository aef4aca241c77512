"""Python's search for cycles of garbage, in a process that is to run for long."""

from __future__ import annotations

import gc


def keep_what_is_loaded() -> None:
    """Have what is there now (modules, models, workflows) looked at no more.

    A full search looks at every object of the process: 40 ms each time with all that is imported here, in which no
    heartbeat is sent and no step goes on, and a fifth of a busy worker's time in all. For a program, as it begins; in
    somebody else's process it would be a surprise.
    """
    gc.collect()
    gc.freeze()
