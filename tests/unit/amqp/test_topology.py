"""Names that cannot collide, and declarations that stay as they are."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fuseline.amqp.resources import Binding, Exchange, Queue
from fuseline.amqp.topology import ANY_RUN, Topology, encode_part
from fuseline.errors import CallerError
from fuseline.model.schema import MAX_ID_LENGTH

ids = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=MAX_ID_LENGTH)
pairs = st.tuples(ids, ids)
# Ids made of little else than what separates and escapes: where two names would meet if they could.
close = st.text("a.%~2E7", min_size=1, max_size=8)


@given(st.lists(pairs | st.tuples(close, close), min_size=2, max_size=2, unique=True))
@example([("a.b", "c"), ("a", "b.c")])
@example([("a%2Eb", "c"), ("a.b", "c")])
@example([("x" * 120, "1"), ("x" * 119 + "y", "1")])
@example([("x" * 101, "1"), ("x" * 59 + "~" + "0" * 40, "1")])
def test_two_pairs_never_share_a_name(two: list[tuple[str, str]]) -> None:
    topology = Topology()
    (one, other) = two
    assert topology.steps_queue(*one) != topology.steps_queue(*other)
    assert topology.steps_key(*one) != topology.steps_key(*other)
    if one[0] != other[0]:
        assert topology.reports_exchange(one[0]) != topology.reports_exchange(other[0])


@given(pairs)
def test_names_are_short_ascii_and_under_the_prefix(pair: tuple[str, str]) -> None:
    topology = Topology("p" * 40)
    names = [
        topology.steps_queue(*pair),
        topology.reports_exchange(pair[0]),
        topology.heartbeats_queue(pair[1]).name + ".0123456789abcdef",
        topology.events_key(pair[0], pair[1], "step_finished"),
    ]
    for name in names:
        assert len(name.encode("ascii")) <= 255
        assert re.fullmatch(r"[A-Za-z0-9_.%~-]+", name)
    assert all(name.startswith(topology.prefix + ".") for name in names[:3])


@given(ids)
def test_a_workflow_id_is_one_part_of_a_topic_key(workflow_id: str) -> None:
    assert Topology().events_key(workflow_id, "i", "e").count(".") == 2
    assert not set(encode_part(workflow_id)) & set("*#")


def test_ordinary_names_stay_readable() -> None:
    topology = Topology()
    assert topology.steps_queue("ingest", "1.2") == "fuseline.steps.ingest.1.2"
    assert topology.reports_exchange("etl.daily") == "fuseline.reports.etl%2Edaily"
    assert topology.events_patterns("ingest") == ["ingest.*.*"]
    assert topology.events_patterns(event="step_finished") == ["*.*.step_finished"]
    assert topology.any_run_key("etl.daily", "step_failed") == "etl%2Edaily.?.step_failed"


def matches(pattern: str, key: str) -> bool:
    """As a topic exchange sees it, where no pattern has a `#`."""
    pairs = zip(pattern.split("."), key.split("."), strict=True)
    return all(mine in ("*", part) for mine, part in pairs)


@given(ids, ids, st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_whoever_is_sent_an_event_is_noticed_by_the_key_without_a_run(
    workflow_id: str, instance_id: str, named: tuple[bool, bool, bool]
) -> None:
    topology = Topology()
    parts = (workflow_id, instance_id, "step_failed")
    patterns = topology.events_patterns(
        *(part if is_named else None for part, is_named in zip(parts, named, strict=True))
    )
    assert any(matches(pattern, topology.events_key(*parts)) for pattern in patterns)
    assert any(matches(pattern, topology.any_run_key(workflow_id, "step_failed")) for pattern in patterns)


@given(ids, ids)
@example("i", ANY_RUN)
def test_whoever_names_a_run_is_sent_no_events_of_others(instance_id: str, other: str) -> None:
    """No run has the key of any run, whatever its id."""
    topology = Topology()
    patterns = topology.events_patterns(instance_id=instance_id)
    is_sent = any(matches(pattern, topology.events_key("w", other, "e")) for pattern in patterns)
    assert is_sent == (instance_id == other)


@pytest.mark.parametrize("prefix", ["", "a.b", "a b", "ä", "x" * 41, "a*"])
def test_a_prefix_that_could_mix_with_other_names_is_refused(prefix: str) -> None:
    with pytest.raises(CallerError, match="prefix"):
        Topology(prefix)


def test_an_unknown_queue_type_is_refused() -> None:
    with pytest.raises(CallerError, match="stream"):
        Topology(queue_type="stream")  # type: ignore[arg-type]  # what a settings file may say


def test_step_queues_dead_letter_at_least_once() -> None:
    """P4: RabbitMQ falls back to at most once, silently, unless the queue rejects what is over its length."""
    queue = next(one for one in Topology().workflow_resources("w", "1") if isinstance(one, Queue))
    assert queue.arguments == {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "fuseline.dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": 20,
    }


def test_what_coordinators_take_is_parked_when_nobody_ever_gets_through_with_it() -> None:
    """P4: RabbitMQ 4 would drop it after 20 deliveries, which flapping connections soon make."""
    topology = Topology()
    queues = {one.name: one.arguments for one in topology.base_resources() if isinstance(one, Queue)}
    for name in (topology.reports_queue, topology.commands_queue, topology.dead_queue):
        assert queues[name] == {
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "fuseline.parked",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-delivery-limit": 1000,
        }
    assert queues[topology.parked_queue] == {"x-queue-type": "quorum"}


def test_classic_queues_have_no_arguments_of_quorum_queues() -> None:
    topology = Topology(queue_type="classic")
    for resource in topology.base_resources() + topology.workflow_resources("w", "1"):
        if isinstance(resource, Queue):
            assert resource.arguments["x-queue-type"] == "classic"
            assert "x-delivery-limit" not in resource.arguments
            assert "x-dead-letter-strategy" not in resource.arguments


def test_every_binding_joins_what_is_declared_before_it() -> None:
    topology = Topology()
    exchanges: set[str] = set()
    queues: set[str] = set()
    for resource in topology.base_resources() + topology.workflow_resources("w", "1"):
        match resource:
            case Exchange(name=name):
                exchanges.add(name)
            case Queue(name=name):
                queues.add(name)
            case Binding(source=source, queue=queue):
                assert source in exchanges
                assert queue in queues
    assert {
        topology.parked_queue,
        topology.dead_queue,
        topology.commands_queue,
        topology.reports_queue,
    } <= queues


def test_policies_meet_the_queues_they_are_meant_for_and_no_others() -> None:
    topology = Topology("a")
    steps, parked = topology.policies()
    assert re.search(steps.pattern, topology.steps_queue("w", "1"))
    assert re.search(parked.pattern, topology.parked_queue)
    for name in (
        topology.reports_queue,
        topology.commands_queue,
        topology.dead_queue,
        "ba.steps.w.1",
        "a.parked.x",
    ):
        assert not re.search(steps.pattern, name)
        assert not re.search(parked.pattern, name)


def test_a_reports_exchange_names_its_workflow() -> None:
    topology = Topology("p")
    for workflow_id in ("plain", "eu.orders", "Grüße ~1"):
        assert topology.workflow_of_reports(topology.reports_exchange(workflow_id)) == workflow_id
    too_long = topology.reports_exchange("x" * 150)
    for exchange in (too_long, "p.steps", "q.reports.plain", ""):
        assert topology.workflow_of_reports(exchange) is None
