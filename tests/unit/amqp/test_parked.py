"""What a parked message is published with again, and how it looks as JSON (P4, P7)."""

from __future__ import annotations

import json
import math
from typing import Any

from fuseline.amqp.codec import Properties
from fuseline.amqp.consuming import Delivery
from fuseline.amqp.parked import ParkedMessage, headers_to_keep

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
