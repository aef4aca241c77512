"""pika's I/O services, with one mistake less: a peer that is gone as soon as it was reached is a failed attempt.

pika (1.3 and 1.4) asks a socket for its peer once more after it has connected, and raises a ValueError out of the loop
when there is none any more, as while RabbitMQ restarts behind a proxy. That would end a coordinator, where it was only
to try again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika.adapters.asyncio_connection import _AsyncioIOServicesAdapter
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.nbio_interface import AbstractIOReference
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter


class _Lost(AbstractIOReference):
    """A peer that is gone, of which `on_done` is not told yet."""

    def __init__(self, on_done: Callable[[Any], None], error: OSError) -> None:
        self._on_done: Callable[[Any], None] | None = on_done
        self._error = error

    def cancel(self) -> bool:
        """Tell nobody; whether that was in time."""
        was_in_time = self._on_done is not None
        self._on_done = None
        return was_in_time

    def tell(self) -> None:
        """Tell, unless that was cancelled."""
        on_done, self._on_done = self._on_done, None
        if on_done is not None:
            on_done(self._error)


class _TellsOfLostPeers:
    """To be put before an adapter of pika's."""

    def create_streaming_connection(self, *args: Any, on_done: Callable[[Any], None], **more: Any) -> Any:
        """As pika's, but tells `on_done` of a peer that is gone, in the loop's next turn."""
        try:
            return super().create_streaming_connection(*args, on_done=on_done, **more)  # type: ignore[misc]
        except ValueError as error:
            if not isinstance(error.__context__, OSError):
                raise
            lost = _Lost(on_done, error.__context__)
            self.add_callback_threadsafe(lost.tell)  # type: ignore[attr-defined]
            return lost


class SelectServices(_TellsOfLostPeers, SelectorIOServicesAdapter):  # type: ignore[misc]
    """Over pika's own loop."""

    def __init__(self, loop: IOLoop) -> None:
        super().__init__(loop)  # type: ignore[arg-type]  # which pika does itself, and its types deny


class AsyncioServices(_TellsOfLostPeers, _AsyncioIOServicesAdapter):  # type: ignore[misc]
    """Over a loop of asyncio."""
