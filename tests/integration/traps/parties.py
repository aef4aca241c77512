"""Who takes part: a real coordinator, a broker that asks it, and real workers on threads."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Self

import pytest

from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import Topology
from fuseline.broker import AmqpBroker, Broker
from fuseline.engine import Rules
from fuseline.model import PolicySpec, RunView, Status, StepAssignment, StepReport, StepSchema, WorkflowSchema
from fuseline.storage import MemoryRuntimeStorage
from tests.integration.amqp.harness import wait_until
from tests.integration.coordinator.harness import coordinating
from tests.integration.worker.harness import ThreadedWorker
from tests.unit.worker.bodies import CallableCatalog

PATIENCE_SECONDS = 60.0
"""For what takes a server's restart or several lease times on a busy machine."""
HANG_SECONDS = 30.0
"""A call with a deadline of seconds that takes longer does not end by its deadline."""
# Leases that no stalled machine loses by itself, and a sweep that helps nobody who is tested here.
PATIENT = Rules(lease_seconds=60.0, sweep_seconds=3600.0)


def one_step(*policies: tuple[str, dict[str, Any]], workflow_id: str = "trap") -> WorkflowSchema:
    """A workflow of the single step `a`."""
    specs = [PolicySpec(name=name, config=config) for name, config in policies]
    return WorkflowSchema(workflow_id=workflow_id, steps={"a": StepSchema(name="a", policies=specs)})


def take(broker: Broker, worker_id: str, seconds: float = PATIENCE_SECONDS) -> StepAssignment:
    """The next step for this worker, which has to come in time."""
    deadline = time.monotonic() + seconds
    while (step := broker.get_step(worker_id)) is None:
        assert time.monotonic() < deadline, "no step came"
        time.sleep(0.02)
    return step


def success(of: StepAssignment) -> StepReport:
    """That it was executed."""
    return StepReport(
        workflow_id=of.workflow_id,
        instance_id=of.instance_id,
        step_name=of.step_name,
        attempt=of.attempt,
        state=Status.SUCCEEDED,
        result="done",
    )


def be_hasty(patch: pytest.MonkeyPatch, broker: AmqpBroker, seconds: float) -> None:
    """Give all calls of a broker so much time."""
    patch.setattr(broker, "_call_seconds", seconds)
    patch.setattr(broker._asking, "_call_seconds", seconds)


def error_of(call: Callable[[], object]) -> Exception | None:
    """What the call raises by itself, without waiting for ever for one that hangs."""
    ended: queue.Queue[Exception | None] = queue.Queue()

    def run() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            ended.put(error)
        else:
            ended.put(None)

    threading.Thread(target=run, daemon=True).start()
    try:
        return ended.get(timeout=HANG_SECONDS)
    except queue.Empty:
        pytest.fail(f"the call hangs: it did not end within {HANG_SECONDS:g} s")


class Party:
    """Coordinator, broker and workers over one server, from the opening of the context to its end."""

    def __init__(
        self, url: str, topology: Topology, *, call_seconds: float = PATIENCE_SECONDS, **rules: Any
    ) -> None:
        self.url = url
        self.topology = topology
        self._call_seconds = call_seconds
        self._rules = replace(PATIENT, **rules)
        self._stack = ExitStack()
        self.broker: AmqpBroker

    def __enter__(self) -> Self:
        storage = MemoryRuntimeStorage()
        self._stack.enter_context(coordinating(self.url, self.topology, storage, self._rules))
        self.broker = self._stack.enter_context(self.client())
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def client(self, url: str | None = None, **options: Any) -> AmqpBroker:
        """One more broker, which the caller closes."""
        options.setdefault("call_seconds", self._call_seconds)
        return AmqpBroker(url or self.url, topology=self.topology, **options)

    def worker(
        self, schema: WorkflowSchema, url: str | None = None, **options: Any
    ) -> tuple[ThreadedWorker, CallableCatalog]:
        """One more worker, at work, and what its steps do."""
        bodies = CallableCatalog((schema,))
        bodies.sync |= {name: lambda _assignment: "done" for name in schema.steps}
        worker = ThreadedWorker(url or self.url, self.topology, bodies, **options)
        self._stack.callback(worker.close)
        worker.start()
        return worker, bodies

    def wait(self, instance_id: str) -> RunView:
        """The run when it has ended."""
        return self.broker.wait(instance_id, PATIENCE_SECONDS)

    def wait_for_consumer(self, queue: str) -> None:
        """Until somebody consumes the queue, which may not even exist yet."""
        with BackgroundLink(self.url, name="test") as link:

            def is_consumed() -> bool:
                count = link.count(queue, deadline_seconds=PATIENCE_SECONDS)
                return count is not None and count.consumers > 0

            wait_until(is_consumed)
