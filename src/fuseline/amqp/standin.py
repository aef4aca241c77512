"""What of pika a stand-in for a server needs to speak to a `Link`, so that it need not import pika itself."""

from pika.exceptions import (
    AMQPConnectionError,
    ChannelClosedByBroker,
    ChannelClosedByClient,
    ConnectionClosedByClient,
    StreamLostError,
)
from pika.spec import Basic, BasicProperties

__all__ = [
    "AMQPConnectionError",
    "Basic",
    "BasicProperties",
    "ChannelClosedByBroker",
    "ChannelClosedByClient",
    "ConnectionClosedByClient",
    "StreamLostError",
]
