"""What a parked message is published with again, and how it looks as JSON (P4, P7)."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

from fuseline.amqp.codec import Properties
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.parked import (
    DEATHS,
    EXCHANGE,
    MAX_NESTING,
    PART,
    REASON,
    ParkedMessage,
    ParkedQueue,
    headers_to_keep,
)
from fuseline.amqp.topology import Topology

DEATH = [{"reason": "expired", "queue": "q", "count": 1}]


def test_headers_that_make_rabbitmq_drop_or_copy_are_not_sent_again() -> None:
    """RabbitMQ before 4.0 drops a message whose forged `x-death` names its queue; CC and BCC would multiply it."""
    headers = {
        "x-death": DEATH,
        "x-first-death-queue": "q",
        "x-last-death-queue": "q",
        "x-delivery-count": 3,
        "x-acquired-count": 3,
        "CC": ["other"],
        "BCC": ["other"],
        "ccs": "kept",
        "tenant": "blue",
    }
    kept = headers_to_keep(headers)
    assert json.loads(kept.pop("x-fuseline-deaths")) == DEATH
    assert kept == {"ccs": "kept", "tenant": "blue"}
    again = {"x-fuseline-deaths": "[]", "tenant": "blue"}
    assert headers_to_keep(again) == again
    assert headers_to_keep(None) == {}


def test_whatever_stands_in_headers_has_a_form_in_json() -> None:
    headers: dict[str, Any] = {
        "raw": b"\xff",
        "text": b"t",
        "nan": math.nan,
        "list": [1, None, {"deep": b"\xfe"}],
    }
    delivery = Delivery(1, 1, b"\x00\xff", Properties(headers=headers), "", "", False, "q", None)
    message = ParkedMessage.of(delivery)
    read = ParkedMessage.model_validate_json(message.model_dump_json())
    assert read == message
    assert read.content == b"\x00\xff"
    assert read.headers == {
        "raw": {"base64": "/w=="},
        "text": "t",
        "nan": "nan",
        "list": [1, None, {"deep": {"base64": "/g=="}}],
    }
    assert (read.message_id, read.reason, read.exchange, read.parked_at, read.deaths) == (
        "",
        "",
        "",
        None,
        None,
    )


def test_a_part_says_of_what_it_is_one_and_is_not_sent_again_alone() -> None:
    """P4: whoever exports the parts can put their bodies together; replayed, the order would be lost."""
    headers = {REASON: "too large", EXCHANGE: "fuseline.reports.w", PART: "2 of 3 of 017f"}
    sent: list[tuple[str, str]] = []
    parts = [Delivery(1, 1, b"half", Properties(headers=headers), "", "", False, "q", None)]
    link: Any = SimpleNamespace(
        count=lambda _queue, **_how: SimpleNamespace(messages=len(parts)),
        get=lambda _queue, **_how: parts.pop(),
        publish=lambda exchange, key, *_what, **_how: sent.append((exchange, key)),
        ack=lambda _delivery: None,
    )
    topology = Topology()
    ((message, problem),) = ParkedQueue(link, topology, 1.0).replay(lambda _one: True)
    assert message.part == "2 of 3 of 017f"
    assert json.loads(message.model_dump_json())["part"] == "2 of 3 of 017f"
    assert "part 2 of 3 of 017f" in problem
    assert sent == [("", topology.parked_queue)]


def test_deaths_that_nest_deeper_than_can_be_followed_are_not_kept() -> None:
    """P1: pika reads what Python's stack has no room to write down; every coordinator that was given it ended."""
    nested: Any = "deep"
    for _ in range(700):
        nested = [nested]
    kept = headers_to_keep({"x-death": nested, "mine": 1})
    assert kept["mine"] == 1
    assert kept[DEATHS].strip("[]") == '"nested too deep to be kept"'
    assert kept[DEATHS].count("[") == MAX_NESTING
