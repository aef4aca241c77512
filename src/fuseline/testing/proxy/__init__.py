"""A TCP proxy to put between a client and a server, and to make the network between them faulty.

with TcpProxy("127.0.0.1", 5672) as proxy:
    broker = AmqpBroker(proxy.url("amqp://guest:guest@localhost:5672/"))
    ...
    proxy.cut()
    proxy.freeze()
    proxy.heal()
"""

from fuseline.testing.proxy.conditions import Direction, Where
from fuseline.testing.proxy.proxy import TcpProxy

__all__ = ["Direction", "TcpProxy", "Where"]
