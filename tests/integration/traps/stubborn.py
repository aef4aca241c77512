"""Steps that say which processes they consist of, and then stop for nothing."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from fuseline import TimeoutPolicy, Workflow, step

SECONDS = 600


def _stay(path: str) -> None:
    child = subprocess.Popen(["sleep", str(SECONDS)])
    part = Path(f"{path}.part")
    part.write_text(f"{os.getpid()} {child.pid}")
    part.rename(path)
    time.sleep(SECONDS)


@step(policies=[TimeoutPolicy(1.0)])
def stay_for_a_second(path: str) -> None:
    _stay(path)


@step
def stay(path: str) -> None:
    _stay(path)


@step
def go() -> str:
    return "gone"


slow = Workflow(outputs=[stay_for_a_second], workflow_id="slow", version="1")
endless = Workflow(outputs=[stay], workflow_id="endless", version="1")
brisk = Workflow(outputs=[go], workflow_id="brisk", version="1")

flows = [slow, endless, brisk]
