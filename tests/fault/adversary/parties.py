"""Faults of the parties themselves: killed, stopped and restarted."""

from __future__ import annotations

import signal
import time

from tests.fault.adversary.base import Evidence, Fault, Stage
from tests.fault.options import LEASE_SECONDS
from tests.fault.processes import Role


def _kill(stage: Stage, role: Role) -> Evidence:
    party = stage.party(role)
    with party.lock:
        party.is_down = True
        assert party.process is not None
        party.process.kill()
        code = party.exit_code
    stage.hold(0.0, 2.0)
    party.start()
    return lambda: f"process gone ({code})"


def _terminate(stage: Stage, role: Role) -> Evidence:
    party = stage.party(role)
    with party.lock:
        party.is_down = True
        process = party.process
        assert process is not None
        process.ask_to_end()
    deadline = time.monotonic() + 15.0
    while process.exit_code is None and time.monotonic() < deadline:
        time.sleep(0.05)
    code = process.exit_code
    # One that has just been started again does not listen to signals yet, and holds nothing: as with any program.
    is_starting = code == -signal.SIGTERM and not process.log_file.stat().st_size
    if code != 0 and not is_starting:
        stage.world.complain(f"{party.name} ended with {code} after SIGTERM, not 0: {process.log_tail(3)}")
    stage.hold(0.0, 1.0)
    party.start()
    return lambda: f"process gone ({code})"


def _freeze(stage: Stage, role: Role, low: float, high: float) -> Evidence:
    party = stage.party(role)
    process = party.process
    assert process is not None
    process.freeze()
    time.sleep(0.05)
    state = party.state()
    try:
        stage.hold(low, high)
    finally:
        process.thaw()

    def evidence() -> str | None:
        if state != "T":
            return None
        return stage.losses() or "process stopped, as the kernel says"

    return evidence


def _killer(stage: Stage) -> Evidence:
    """A run whose first step takes down the workers that begin it, twice."""
    world = stage.world
    schema = stage.random.choice(world.schemas)
    (first, *_) = schema.starting_steps()
    stage.target = f"{schema.workflow_id}/{first}"
    for party in world.parties:
        party.may_die = party.role == "worker"
    try:
        world.dispatcher.dispatch(stage.random, schema, {first: {"seconds": 0, "kills": 2}})
        stage.hold(3.0, 5.0)
    finally:
        # The second worker may be long in coming: the fault after this one may purge the queue that its attempt waits in.
        world.supervisor_may_die_until(time.monotonic() + 12 * LEASE_SECONDS)
    seq = stage.seq
    return lambda: (
        stage.losses()
        or ("a worker's process gone" if world.progress.last() > seq and world.deaths() else None)
    )


FAULTS = [
    Fault("kill -9 of a worker", lambda stage: _kill(stage, "worker"), 5),
    Fault("kill -9 of a coordinator", lambda stage: _kill(stage, "coordinator"), 4),
    Fault("SIGTERM and restart of a worker", lambda stage: _terminate(stage, "worker"), 3),
    Fault("SIGTERM and restart of a coordinator", lambda stage: _terminate(stage, "coordinator"), 3),
    Fault("SIGSTOP of a worker", lambda stage: _freeze(stage, "worker", 1.0, 4.0), 2),
    Fault(
        "SIGSTOP of a worker beyond its lease",
        lambda stage: _freeze(stage, "worker", LEASE_SECONDS + 2, LEASE_SECONDS + 5),
        2,
        is_quick=False,
    ),
    Fault("step that kills its worker", _killer, 1, is_quick=False),
    Fault("SIGSTOP of a coordinator", lambda stage: _freeze(stage, "coordinator", 2.0, 9.0), 2),
]
