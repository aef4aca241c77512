"""Room in SQLite's write-ahead log, made once: a log that grows with each commit makes each of them twice as dear."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

ROOM_AFTER_COMMITS: Final = 32
"""A process that commits a few times has nothing of it."""
ROOM_BYTES: Final = 1_100 * 4_120
"""SQLite begins its log anew once it has 1,000 pages (`wal_autocheckpoint`); the last commit before may go over that."""
_CHUNK: Final = bytes(64 * 1024)


def make_room(database: str) -> None:
    """Write zeros to the end of the log of this file, up to `ROOM_BYTES`.

    To be called within a write transaction, so that nobody else lengthens, shortens or restarts the log meanwhile. SQLite
    reads a log up to the first frame that is not valid, and one of zeros never is; it writes its frames over them. What
    lies there already is left as it is. A commit then changes the file's contents and not its size, which is one write to
    the disk in place of two. Without the room (no such log, a full disk) all goes on as before.
    """
    path = os.path.realpath(database) + "-wal"  # beside the file itself, where `database` is a link to it
    with suppress(OSError):
        log = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0))
        try:
            _lengthen(log)
        finally:
            os.close(log)


def _lengthen(log: int) -> None:
    size = os.fstat(log).st_size
    try:
        left = ROOM_BYTES - size
        while left > 0:
            left -= os.write(log, _CHUNK[:left])
        os.fsync(log)
    except OSError:
        os.ftruncate(log, size)  # what is left of the disk is for the commits
        raise
