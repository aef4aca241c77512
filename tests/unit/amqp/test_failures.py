"""P7: one line that says what happened, whatever pika wrapped it in."""

from __future__ import annotations

import pytest
from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorAMQPHandshakeError,
    AMQPConnectorSocketConnectError,
)
from pika.exceptions import (
    AMQPConnectionError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    StreamLostError,
)

from fuseline.amqp.failures import channel_error, connection_error, publish_error
from fuseline.errors import (
    AccessRefusedError,
    BrokerBusyError,
    BrokerUnavailableError,
    FuselineError,
    InvalidMessageError,
    MessageTooLargeError,
    TopologyError,
    UnroutableError,
)


def failed(reason: Exception) -> AMQPConnectionWorkflowFailed:
    return AMQPConnectionWorkflowFailed([reason])


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (
            AMQPConnectionError(
                failed(AMQPConnectorSocketConnectError(ConnectionRefusedError(111, "refused")))
            ),
            "[Errno 111] refused",
        ),
        (failed(AMQPConnectorAMQPHandshakeError(ProbableAuthenticationError("x"))), "x"),
        (ProbableAuthenticationError("x"), "user or password refused"),
        (ProbableAccessDeniedError("x"), "virtual host"),
        (ConnectionClosedByBroker(320, "CONNECTION_FORCED - a test"), "CONNECTION_FORCED - a test (320)"),
        (StreamLostError("Transport indicated EOF"), "EOF"),
        (AMQPConnectionError(), "AMQPConnectionError"),
    ],
)
def test_the_cause_of_a_lost_connection(reason: Exception, told: str) -> None:
    text = str(connection_error("h:1", reason))
    assert text.startswith("RabbitMQ at h:1: ")
    assert told in text
    assert "\n" not in text
    assert len(text) < 120


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (404, "NOT_FOUND - no exchange 'x'", UnroutableError),
        (403, "ACCESS_REFUSED", AccessRefusedError),
        (
            406,
            "PRECONDITION_FAILED - message size 9 is larger than configured max size 8",
            MessageTooLargeError,
        ),
        (406, "PRECONDITION_FAILED - invalid expiration", InvalidMessageError),
    ],
)
def test_why_a_publish_closed_the_channel(code: int, text: str, kind: type[FuselineError]) -> None:
    error = publish_error("the-exchange", "the-key", ChannelClosedByBroker(code, text))
    assert type(error) is kind
    assert "the-exchange" in str(error)
    assert text in str(error)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (404, "NOT_FOUND - no queue", TopologyError),
        (403, "ACCESS_REFUSED", AccessRefusedError),
        (405, "RESOURCE_LOCKED", BrokerBusyError),
        (406, "PRECONDITION_FAILED - inequivalent arg 'x-max-length'", TopologyError),
        (
            406,
            "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out",
            BrokerUnavailableError,
        ),
    ],
)
def test_why_a_channel_ended(code: int, text: str, kind: type[FuselineError]) -> None:
    error = channel_error("queue 'q'", ChannelClosedByBroker(code, text))
    assert type(error) is kind
    assert str(error) == f"queue 'q': {text}"


def test_a_channel_that_went_with_its_connection() -> None:
    lost = StreamLostError("gone")
    assert isinstance(publish_error("x", "y", lost), BrokerUnavailableError)
    assert isinstance(channel_error("q", lost), BrokerUnavailableError)
