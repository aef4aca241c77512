"""How much of a definition goes over RabbitMQ with a dispatch: as little as the coordinator needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, ClassVar

import pytest

from fuseline.amqp.topology import Topology
from fuseline.amqp.wire import Command, read
from fuseline.broker import AmqpBroker
from fuseline.broker.defining import WHOLE_UP_TO_STEPS
from fuseline.broker.dispatching import RUNS_AT_ONCE
from fuseline.coordinator import Coordinator, commands
from fuseline.errors import InvalidInputsError, SchemaConflictError
from fuseline.model import RunStatus, WorkflowSchema
from fuseline.storage import MemoryRuntimeStorage
from fuseline.testing.broker_cases import RETRY
from fuseline.testing.flows import graph
from tests.integration.amqp.harness import SECONDS
from tests.integration.coordinator.harness import coordinating

PARTS = [f"part-{number}" for number in range(WHOLE_UP_TO_STEPS)]
LARGE = graph("large", {"split": PARTS})
SMALL = graph("small", {"split": PARTS[1:]})
PATIENT = graph("large", {"split": PARTS}, policies={"split": [RETRY]})
CHANGED = graph("large", {"split": [*PARTS[1:], "other"]})

WHOLE, DIGEST, NOTHING = "definition", "digest", "nothing"


class Dispatcher:
    """A broker, what of definitions its dispatches carry, and how many bytes that takes."""

    def __init__(self, broker: AmqpBroker) -> None:
        self.broker = broker
        self.sent: list[str] = []
        self.bytes: list[int] = []
        link: Any = broker._link
        self._begin_rpc = link.begin_rpc
        link.begin_rpc = self._watched

    def _watched(self, exchange: str, key: str, body: bytes, *rest: Any, **more: Any) -> Any:
        command = read(Command, body)
        if command.name.startswith("dispatch"):
            self.sent.append(
                WHOLE if "definition" in command.args else DIGEST if "digest" in command.args else NOTHING
            )
            self.bytes.append(len(body))
        return self._begin_rpc(exchange, key, body, *rest, **more)

    def dispatch(self, schema: WorkflowSchema) -> list[str]:
        """A run; and what has been sent for it."""
        self.sent = []
        self.broker.dispatch_workflow(schema)
        return self.sent


Connect = Callable[[], Dispatcher]


@pytest.fixture
def storage() -> MemoryRuntimeStorage:
    """Where the coordinator keeps the runs."""
    return MemoryRuntimeStorage()


@pytest.fixture
def coordinator(amqp_url: str, topology: Topology, storage: MemoryRuntimeStorage) -> Iterator[Coordinator]:
    """Serving."""
    with coordinating(amqp_url, topology, storage) as coordinator:
        yield coordinator


@pytest.fixture
def connect(amqp_url: str, topology: Topology) -> Iterator[Connect]:
    """Brokers, as processes of their own would have them."""
    with ExitStack() as stack:
        yield lambda: Dispatcher(
            stack.enter_context(AmqpBroker(amqp_url, topology=topology, call_seconds=SECONDS))
        )


def stored(storage: MemoryRuntimeStorage) -> Mapping[str, WorkflowSchema]:
    """The registered definitions."""
    return {one.schema.workflow_id: one.schema for one in storage.list_schemas()}


@pytest.mark.usefixtures("coordinator")
def test_an_unknown_version_is_asked_for_and_never_sent_again(
    connect: Connect, storage: MemoryRuntimeStorage
) -> None:
    """By nobody: another broker needs no more than its digest."""
    first, second = connect(), connect()
    assert first.dispatch(LARGE) == [DIGEST, WHOLE]
    assert first.dispatch(LARGE) == [NOTHING]
    assert stored(storage) == {"large": LARGE}
    assert second.dispatch(LARGE) == [DIGEST]
    assert second.dispatch(LARGE) == [NOTHING]
    assert max(second.bytes) < 300
    assert storage.count_runs() == {RunStatus.RUNNING: 4}


@pytest.mark.usefixtures("coordinator")
def test_a_small_definition_goes_with_its_first_dispatch(connect: Connect) -> None:
    """Whether it is registered or not: that is one way there and back."""
    for one in (connect(), connect()):
        assert one.dispatch(SMALL) == [WHOLE]
        assert one.dispatch(SMALL) == [NOTHING]


@pytest.mark.usefixtures("coordinator")
def test_changed_policies_are_sent_and_count(connect: Connect, storage: MemoryRuntimeStorage) -> None:
    """From then on, also for brokers that had another definition before; whoever comes anew brings his own."""
    old, new = connect(), connect()
    old.dispatch(LARGE)
    assert new.dispatch(PATIENT) == [DIGEST, WHOLE]
    assert stored(storage) == {"large": PATIENT}
    assert old.dispatch(LARGE) == [NOTHING]
    assert stored(storage) == {"large": PATIENT}
    assert connect().dispatch(PATIENT) == [DIGEST]
    assert connect().dispatch(LARGE) == [DIGEST, WHOLE]
    assert stored(storage) == {"large": LARGE}


@pytest.mark.usefixtures("coordinator")
def test_another_graph_is_refused_each_time_and_its_difference_named(
    connect: Connect, storage: MemoryRuntimeStorage
) -> None:
    """P7."""
    connect().dispatch(LARGE)
    one = connect()
    for _ in range(2):
        with pytest.raises(SchemaConflictError, match="step 'part-0' was removed"):
            one.dispatch(CHANGED)
        assert one.sent == [DIGEST, WHOLE]
    assert storage.count_runs() == {RunStatus.RUNNING: 1}


@pytest.mark.usefixtures("coordinator")
def test_many_runs_carry_it_once_and_begin_once(connect: Connect, storage: MemoryRuntimeStorage) -> None:
    """P3: those that wait for the first command wait for its second try, too."""
    ids = [f"run-{number}" for number in range(2 * RUNS_AT_ONCE + 50)]
    for one, sent in (
        (connect(), [DIGEST, WHOLE, NOTHING, NOTHING]),
        (connect(), [DIGEST, NOTHING, NOTHING]),
    ):
        assert one.broker.dispatch_many(LARGE, [None] * len(ids), instance_ids=ids) == ids
        assert one.sent == sent
    assert storage.count_runs() == {RunStatus.RUNNING: len(ids)}


def test_a_database_that_was_emptied_is_told_again(
    amqp_url: str, topology: Topology, connect: Connect
) -> None:
    """Who knew the old one and who comes anew: nobody has to be started again."""
    known, empty = MemoryRuntimeStorage(), MemoryRuntimeStorage()
    one = connect()
    with coordinating(amqp_url, topology, known):
        one.dispatch(LARGE)
    with coordinating(amqp_url, topology, empty):
        assert one.dispatch(LARGE) == [NOTHING, WHOLE]
        empty._schemas.clear()
        assert connect().dispatch(LARGE) == [DIGEST, WHOLE]
        assert stored(empty) == {"large": LARGE}
        assert empty.count_runs() == {RunStatus.RUNNING: 2}


@pytest.mark.usefixtures("coordinator")
def test_a_coordinator_that_knows_no_digests_gets_the_whole(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dispatchers may be upgraded before it."""

    class OldArgs(commands._Args):
        workflow_id: str
        version: str
        instance_id: str
        inputs: dict[str, Any]
        definition: WorkflowSchema | None = None
        digest: ClassVar[None] = None

    monkeypatch.setattr(commands, "DispatchArgs", OldArgs)
    one = connect()
    assert one.dispatch(LARGE) == [DIGEST, WHOLE]
    assert one.dispatch(LARGE) == [NOTHING]


@pytest.mark.usefixtures("coordinator")
def test_what_else_is_wrong_is_said_at_once(connect: Connect) -> None:
    """P7: with less than the whole definition, too."""
    shape = {"type": "object", "required": ["count"]}
    schema = graph("shaped", {"split": PARTS}, inputs_schema=shape)
    connect().broker.dispatch_workflow(schema, {"count": 1})
    one = connect()
    with pytest.raises(InvalidInputsError, match="count"):
        one.dispatch(schema)
    assert one.sent == []
