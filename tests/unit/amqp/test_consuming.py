"""A consumer whose channel is closed while it is being set up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fuseline.amqp.resources import PrivateQueue
from fuseline.amqp.traffic import Traffic
from tests.unit.amqp.consumers import consumer_on


class Closing:
    """A channel that pika opens, and that is closed before RabbitMQ has answered; pika refuses all else on it then."""

    def __init__(self) -> None:
        self.is_open = True
        self.opened: Any = None
        self.answer: Any = None

    def channel(self, on_open_callback: Any) -> Closing:
        self.opened = on_open_callback
        return self

    def add_on_close_callback(self, _callback: Any) -> None:
        """It is not closed by the server."""

    def add_on_cancel_callback(self, _callback: Any) -> None:
        """Nor is its consumer cancelled."""

    def basic_qos(self, *, prefetch_count: int, callback: Any) -> None:
        assert prefetch_count
        self.answer = callback

    def close(self) -> None:
        self.is_open = False

    def queue_declare(self, *_args: Any, **_options: Any) -> None:
        raise AssertionError("the channel is closing")

    basic_consume = queue_bind = queue_declare


@pytest.mark.parametrize(
    "queue", ["q", PrivateQueue("mine", bindings=(("exchange", ""),))], ids=["shared", "private"]
)
@pytest.mark.parametrize("how", ["by its owner", "with its connection"])
def test_an_answer_that_comes_after_the_end_is_nobody_s(queue: str | PrivateQueue, how: str) -> None:
    """What is raised there would end the connection, and all that is still under way on it."""
    channel = Closing()
    loop: Any = SimpleNamespace(call_soon=lambda call: call(), call_later=lambda *_: None)
    connection: Any = SimpleNamespace(traffic=Traffic(), pika=channel)
    consumer = consumer_on(connection, loop, queue, 10)
    consumer.open()
    channel.opened(channel)
    if how == "by its owner":
        consumer.end()
    else:
        channel.close()
    channel.answer(None)
    assert not consumer.is_consuming
