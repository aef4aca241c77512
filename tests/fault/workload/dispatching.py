"""The stream of runs: what was asked for, and what was answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from random import Random
from typing import Any, Final

from fuseline.broker import AmqpBroker
from fuseline.clock import SystemClock
from fuseline.errors import CallerError, InvalidInputsError, RetryableError
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import DeadLetterReason, DeadLetterState
from tests.fault.history import History
from tests.fault.workload.graphs import draw_scripts

THREADS: Final = 3
MAX_OPEN: Final = 150
"""Runs that are open at once: a system that is away is not buried in work for when it comes back."""
_REPEATS: Final = 4


class Dispatcher:
    """Asks for runs on a few threads, cancels some, replays a dead letter now and then. `acknowledged` are the runs' ids."""

    def __init__(
        self,
        broker: AmqpBroker,
        schemas: list[WorkflowSchema],
        history: History,
        seed: int,
        runs_per_second: float,
    ) -> None:
        self._broker = broker
        self._schemas = schemas
        self._history = history
        self._clock = SystemClock()
        self._pause_seconds = THREADS / runs_per_second
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.acknowledged: list[str] = []
        self.last_acknowledged_at = 0.0
        self.open_runs = 0
        self._threads = [
            threading.Thread(target=self._work, args=(Random(f"{seed}/dispatch/{number}"),), daemon=True)
            for number in range(THREADS)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask for no more; returns when what was asked for is answered."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, random: Random) -> None:
        while not self._stop.wait(random.expovariate(1 / self._pause_seconds)):
            if self.open_runs > MAX_OPEN:
                continue
            self.dispatch(random, random.choice(self._schemas))
            if random.random() < 0.03:
                self._replay(random)

    def dispatch(self, random: Random, schema: WorkflowSchema, scripts: dict[str, Any] | None = None) -> str:
        """Ask for one run; its id."""
        instance_id = self._clock.new_id()
        inputs: dict[str, Any] = {"scripts": scripts or draw_scripts(random, schema)}
        is_wrong = random.random() < 0.01
        if is_wrong:
            inputs = {"script": inputs["scripts"]}
        self._history.write("asked", run=instance_id, workflow=schema.workflow_id, inputs=inputs)
        with self._lock:
            self.counts["attempted"] += 1
        repeats = _REPEATS if random.random() < 0.5 else 1
        outcome = "indeterminate"
        for _ in range(repeats):
            try:
                self._broker.dispatch_workflow(schema, inputs, instance_id=instance_id)
            except RetryableError as error:
                self._history.write("unanswered", run=instance_id, error=f"{type(error).__name__}: {error}")
                self._stop.wait(random.uniform(0.2, 1.0))
            except CallerError as error:
                outcome = "failed" if is_wrong and isinstance(error, InvalidInputsError) else "refused"
                self._history.write(outcome, run=instance_id, error=f"{type(error).__name__}: {error}")
                break
            else:
                outcome = "acknowledged"
                self._history.write(outcome, run=instance_id)
                break
        with self._lock:
            self.counts[outcome] += 1
            if outcome == "acknowledged":
                self.acknowledged.append(instance_id)
                self.last_acknowledged_at = time.time()
        if outcome == "acknowledged" and random.random() < 0.05:
            self._cancel(random, instance_id)
        return instance_id

    def _cancel(self, random: Random, instance_id: str) -> None:
        self._stop.wait(random.uniform(0.0, 2.0))
        self._history.write("cancelling", run=instance_id)
        with self._lock:
            self.counts["cancels attempted"] += 1
        try:
            self._broker.cancel_run(instance_id)
        except RetryableError as error:
            outcome = "cancels indeterminate"
            self._history.write("cancel unanswered", run=instance_id, error=str(error))
        except CallerError as error:  # it has ended
            outcome = "cancels refused"
            self._history.write("cancel refused", run=instance_id, error=str(error))
        else:
            outcome = "cancels acknowledged"
            self._history.write("cancelled", run=instance_id)
        with self._lock:
            self.counts[outcome] += 1

    def _replay(self, random: Random) -> None:
        """As an operator does. What took down its workers is left alone: nothing has been mended."""
        try:
            letters = self._broker.list_dead_letters(state=DeadLetterState.OPEN, limit=30)
            letters = [one for one in letters if one.reason is not DeadLetterReason.POISON]
            if not letters:
                return
            letter = random.choice(letters)
            self._history.write("replaying", run=letter.instance_id, step=letter.step_name)
            self._broker.replay_dead_letter(letter.letter_id)
        except RetryableError:
            outcome = "replays indeterminate"
        except CallerError as error:  # its run goes on, has succeeded without the step, or was cancelled
            outcome = "replays refused"
            self._history.write("replay refused", error=str(error))
        else:
            outcome = "replays acknowledged"
        with self._lock:
            self.counts[outcome] += 1
