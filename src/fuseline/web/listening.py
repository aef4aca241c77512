"""A listening socket, made before anything else is, so that an address in use is known at once."""

from __future__ import annotations

import socket

from fuseline.errors import FatalError


def listen(host: str, port: int) -> socket.socket:
    """Raises `FatalError` naming the address when it cannot be listened on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(2048)
        except OSError:
            listening.close()
            raise
    except (OSError, OverflowError) as error:
        raise FatalError(f"cannot listen on {host}:{port}: {error}") from error
    return listening


def address_of(listening: socket.socket) -> str:
    """What to put into a browser or an `HttpBroker`."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if listening.family is socket.AF_INET6 else f"http://{host}:{port}"
