"""P1, P7: properties and headers that other clients may send, and that pika cannot read: they stop nobody else's steps."""

from __future__ import annotations

import json
import struct
from typing import Any

import pika.data
import pytest

from fuseline.amqp.parked import ParkedMessage
from fuseline.engine import Rules
from fuseline.model import RunStatus
from fuseline.testing.flows import graph
from tests.integration.amqp.harness import SECONDS, props, wait_until
from tests.integration.coordinator.conftest import Serve
from tests.integration.coordinator.test_spoilt_reports import ForeignWorker, worker

__all__ = ["worker"]


class Raw(bytes):
    """A header's value as it goes over the wire, its kind first."""


@pytest.fixture(autouse=True)
def _raw_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = pika.data.encode_value

    def encode_value(pieces: list[bytes], value: Any) -> int:
        if isinstance(value, Raw):
            pieces.append(bytes(value))
            return len(value)
        return encode(pieces, value)

    monkeypatch.setattr(pika.data, "encode_value", encode_value)


def deep(levels: int) -> Raw:
    value = b""
    for _ in range(levels):
        value = b"A" + struct.pack(">I", len(value)) + value
    return Raw(value)


ODD: dict[str, dict[str, Any]] = {
    "a time that Python lacks": {"headers": {"x": Raw(b"T" + struct.pack(">Q", 2**62))}},
    "nested deeper than Python goes": {"headers": {"x": deep(5000)}},
    "a name that is no UTF-8": {"headers": {b"\xff": 1}},
    "ids that are no UTF-8": {"message_id": b"\xff", "correlation_id": b"\xfe", "type": b"\xfd"},
    "long ids that are no UTF-8": {
        "message_id": b"\xff" * 100,
        "correlation_id": b"\xfe" * 255,
        "type": b"\xfd" * 86,
    },
    "headers as large as a frame": {"headers": {"x": "a" * 130_900}},
    "headers that are larger once they are written again": {
        "headers": {"x": Raw(b"A" + struct.pack(">I", 80_000) + b"b\x01" * 40_000)}
    },
    "a long name that is no UTF-8": {"headers": {b"\xff" * 100: 1}},
    "a time of its own that Python lacks": {"timestamp": 2**63},
}


@pytest.mark.parametrize("kind", ODD)
def test_a_message_with_odd_properties_is_parked_and_the_next_one_recorded(
    serve: Serve, worker: ForeignWorker, kind: str
) -> None:
    broker = serve(Rules(sweep_seconds=60.0))
    run = broker.dispatch_workflow(graph("spoilt", {"a": []}))
    worker.consume("spoilt")
    worker.take()
    properties = props()
    for name, value in ODD[kind].items():
        setattr(properties, name, value)
    worker.say("spoilt", b"no report", properties)
    good = {"workflow_id": "spoilt", "instance_id": run, "step_name": "a", "state": "SUCCEEDED"}
    worker.say("spoilt", json.dumps(good).encode(), props())
    assert broker.wait(run, SECONDS).state is RunStatus.SUCCEEDED
    # What came behind it may be recorded before it has arrived there.
    parked: list[bytes] = []

    def is_parked() -> bool:
        delivery = worker.link.get(worker.topology.parked_queue, deadline_seconds=SECONDS)
        parked.extend(ParkedMessage.of(one).content for one in (delivery,) if one is not None)
        return bool(parked)

    wait_until(is_parked)
    assert parked == [b"no report"]
