"""One run of the harness: a world, its faults, and the judgement."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tests.fault import verdict
from tests.fault.checker.gathering import gather
from tests.fault.checker.leaks import usages
from tests.fault.director import Director
from tests.fault.options import Options
from tests.fault.world import World

_EVERY_SECONDS: Final = 2.0
_SELDOM_SECONDS: Final = 20.0
"""Where each line stays, in a log."""


def run_world(options: Options) -> dict[str, Any]:
    """The result; artefacts are in `options.folder`."""
    began = time.time()
    with World(options) as world:
        director = Director(world)
        progress = Progress(world, director)
        progress.start()
        try:
            world.wait_healthy(60.0)
            time.sleep(options.warm_seconds)
            before = usages(world.parties)
            director.run()
            last_fault_at = time.time()
            director.heal()
            world.history.write("healed")
            world.dispatcher.stop()
            _settle(world, last_fault_at)
        finally:
            progress.stop()
        world.history.write("settled")
        facts = gather(world, last_fault_at, before)
        world.history.write("gathered")
        servers = {
            "rabbitmq": ".".join(map(str, world.nodes[0].version())),
            "postgresql": (world.progress.ask("SHOW server_version") or ("?",))[0].split()[0],
        }
    result = verdict.conclude(facts, director.injected, director.broken, options)
    result["versions"] |= servers
    result["began_at"], result["took_seconds"] = began, round(time.time() - began, 1)
    verdict.save(result, options.folder / "result.json")
    if not result["passed"]:
        text = verdict.account(facts, result, options.folder)
        (options.folder / "account.txt").write_text(text + "\n", encoding="utf-8")
        print(text)
    return result


def _settle(world: World, last_fault_at: float) -> None:
    """Until all runs have ended, or the time for it is over."""
    while time.time() < last_fault_at + world.options.within_seconds:
        if world.progress.runs().get("RUNNING", 1 if not world.progress.last() else 0) == 0:
            break
        time.sleep(0.5)
    try:
        world.wait_healthy(60.0)
    except TimeoutError as error:
        world.complain(f"parties are not well after everything was healed: {error}")


class Progress:
    """One line that says how far it is, again and again; and how many runs are open, for the dispatcher."""

    def __init__(self, world: World, director: Director) -> None:
        self._world = world
        self._director = director
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and leave the line."""
        self._stop.set()
        self._thread.join()
        print(file=sys.stderr)

    def _show(self) -> None:
        printed = 0.0
        while not self._stop.wait(_EVERY_SECONDS):
            runs = self._world.count_runs()
            open_runs = runs.pop("RUNNING", 0)
            self._world.dispatcher.open_runs = open_runs
            done = sum(runs.values())
            injected = self._director.injected
            last = injected[-1].kind if injected else "-"
            elapsed = time.monotonic() - self._began
            text = (
                f"{elapsed:6.0f} s  {len(injected)} faults  {open_runs} runs open, {done} done  last: {last}"
            )
            end = "\r" if sys.stderr.isatty() else "\n"
            if sys.stderr.isatty() or elapsed >= printed + _SELDOM_SECONDS:
                printed = elapsed
                print(f"{text:<110}", end=end, file=sys.stderr, flush=True)


def worlds(seed: int, minutes: float, topology: str, folder: Path, **more: Any) -> list[Options]:
    """The worlds of one run: of `both`, the first third is on one node, the rest on a cluster."""
    whole = Options(seed, minutes * 60, "single", folder, **more)
    if topology == "single":
        return [replace(whole, folder=folder / "single")]
    if topology == "cluster":
        return [replace(whole, topology="cluster", folder=folder / "cluster")]
    return [
        replace(whole, seconds=whole.seconds / 3, folder=folder / "single"),
        replace(whole, topology="cluster", seconds=whole.seconds * 2 / 3, folder=folder / "cluster"),
    ]
