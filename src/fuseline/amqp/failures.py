"""What pika and RabbitMQ say went wrong, as our errors (P7)."""

from __future__ import annotations

from pika.exceptions import (
    AMQPConnectionError,
    ChannelClosed,
    ConnectionClosed,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from fuseline.amqp.topology import DEFAULT_EXCHANGE, REPLY_TO
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

ACCESS_REFUSED = 403
NOT_FOUND = 404
RESOURCE_LOCKED = 405
PRECONDITION_FAILED = 406
CONNECTION_FORCED = 320
"""By an operator, or by a RabbitMQ that stops: nothing that was sent is to blame."""


def answer_error(exchange: str, key: str, reason: BaseException) -> BrokerUnavailableError | None:
    """What becomes of a message that was on its way as its channel ended; None: it is sent again.

    RabbitMQ (seen on 3.10.8) ends the connection over the address of a node that is down, or of nobody, and would again each
    time that it is sent, while all others wait behind it. Who waits for an answer asks again.
    """
    is_answer = exchange == DEFAULT_EXCHANGE and key.startswith(REPLY_TO)
    if is_answer and isinstance(reason, ConnectionClosedByBroker) and reason.reply_code != CONNECTION_FORCED:
        return BrokerUnavailableError(f"{key[:80]}: RabbitMQ ended the connection, perhaps over this address")
    return None


def connection_error(where: str, reason: BaseException) -> BrokerUnavailableError:
    """Why there is no connection to `where`, in one line."""
    return BrokerUnavailableError(f"RabbitMQ at {where}: {_why(reason)}")


def publish_error(exchange: str, key: str, reason: BaseException) -> FuselineError:
    """Why the server closed the channel over one message."""
    if not isinstance(reason, ChannelClosed):
        return BrokerUnavailableError(f"the channel ended: {reason}")
    text = str(reason.reply_text)
    match reason.reply_code:
        case 404:
            return UnroutableError(f"exchange {exchange!r} does not exist (key {key!r}): {text}")
        case 403:
            return AccessRefusedError(f"publishing to exchange {exchange!r}: {text}")
        case 406 if "larger than" in text:
            return MessageTooLargeError(f"message to exchange {exchange!r}, key {key!r}: {text}")
        case _:
            return InvalidMessageError(
                f"RabbitMQ refuses the message to exchange {exchange!r}, key {key!r}: {text}"
            )


def channel_error(what: str, reason: BaseException) -> FuselineError:
    """Why the channel on which we did `what` ended."""
    if not isinstance(reason, ChannelClosed):
        return BrokerUnavailableError(f"{what}: {_why(reason)}")
    text = f"{what}: {reason.reply_text}"
    match reason.reply_code:
        case 404:
            return TopologyError(text)
        case 403:
            return AccessRefusedError(text)
        case 405:
            return BrokerBusyError(text)
        case 406 if "inequivalent" in text or "invalid arg" in text:
            return TopologyError(text)
        case _:
            return BrokerUnavailableError(text)


def _why(reason: BaseException) -> str:
    """The last cause: pika wraps what happened several times, each with its own repr around the last."""
    inner = _innermost(reason)
    if isinstance(reason, ProbableAuthenticationError):
        return f"user or password refused ({inner})"
    if isinstance(reason, ProbableAccessDeniedError):
        return f"the user has no access to the virtual host ({inner})"
    if isinstance(inner, ConnectionClosed | ChannelClosed):
        return f"{inner.reply_text} ({inner.reply_code})"
    text = str(inner)
    return text if text and not isinstance(inner, AMQPConnectionError) else f"{type(inner).__name__}: {text}"


def _innermost(reason: BaseException) -> BaseException:
    for _ in range(10):
        nested = getattr(reason, "exceptions", None) or getattr(reason, "exception", None) or reason.args[:1]
        last = nested[-1] if isinstance(nested, list | tuple) and nested else nested
        if not isinstance(last, BaseException):
            break
        reason = last
    return reason
