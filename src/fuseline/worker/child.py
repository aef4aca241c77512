"""What runs in a process of its own: executes one assignment after the other for the worker that started it.

The protocol on the pipe: at first `READY` or what is wrong, then for each assignment (JSON) the report (JSON).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final

from fuseline.errors import FuselineError
from fuseline.model.messages import StepAssignment
from fuseline.worker.reports import Sealed

READY: Final = "ready"

Execute = Callable[[StepAssignment], Sealed]
End = Callable[[], None]


def serve(pipe: Connection, load: Callable[[], tuple[Execute, End]]) -> None:
    """Execute with what `load` returns, until the worker closes its end of `pipe`; then call its `End`."""
    # A group of its own, so that the worker can kill it together with what its step has started, and Ctrl-C leaves it.
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):
        # The service manager signals the whole group, but it is the worker that decides when this process ends. A
        # handler, not SIG_IGN, which would be inherited by every program that a step starts.
        signal.signal(number, _decided_elsewhere)
    threading.Thread(target=_follow_parent, name="fuseline parent watch", daemon=True).start()
    try:
        execute, end = load()
    except FuselineError as error:
        pipe.send_bytes(str(error).encode())
        return
    pipe.send_bytes(READY.encode())
    with contextlib.suppress(EOFError):
        while True:
            assignment = StepAssignment.model_validate_json(pipe.recv_bytes())
            pipe.send_bytes(execute(assignment).body)
    end()


def _follow_parent() -> None:
    """A step whose worker was killed is nobody's: it ends with it, and so does what it has started."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os.killpg(0, signal.SIGKILL)


def _decided_elsewhere(_number: int, _frame: Any) -> None:
    """Keep on."""
