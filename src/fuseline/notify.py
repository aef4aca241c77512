"""Tells the service manager how a daemon is doing: systemd's notify protocol, with nothing but a socket.

sd_notify(3) is the source: datagrams of `NAME=value` lines to the unix socket that `NOTIFY_SOCKET` names. Without that
variable nothing is sent, so a daemon calls this whether systemd started it or not.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from fuseline.errors import FatalError


class Notifier:
    """Sends states of this process. `environ` is what systemd set; `pid` is the process that it was set for.

    Raises `FatalError` when `NOTIFY_SOCKET` or `WATCHDOG_USEC` is there and makes no sense. Sending never raises and never
    blocks: a service manager that cannot be reached is no reason to stop work, and systemd acts on the silence.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, pid: int | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = _socket_address(environ.get("NOTIFY_SOCKET", ""))
        self._interval_seconds = _watchdog_interval(environ, os.getpid() if pid is None else pid)

    @property
    def enabled(self) -> bool:
        """Whether anybody listens."""
        return self._address is not None

    @property
    def watchdog_seconds(self) -> float | None:
        """How often to call `watchdog`: half of what systemd allows; None when it does not watch this process."""
        if not self.enabled or self._interval_seconds is None:
            return None
        return self._interval_seconds / 2

    def ready(self, status: str = "") -> None:
        """Start-up is over (or reloading is): units ordered after this one may start."""
        self._send("READY=1", *_status(status))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(*_status(text))

    def reloading(self) -> None:
        """The configuration is being read anew; `ready` says that this is over."""
        # Type=notify-reload requires the time as well, to tell this notice from an older one.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "") -> None:
        """The process is on its way out."""
        self._send("STOPPING=1", *_status(status))

    def watchdog(self) -> None:
        """Still alive; sends nothing when systemd does not watch this process."""
        if self._interval_seconds is not None:
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self._address is None or not lines:
            return
        # A socket a message: they are rare, and none is left behind for a fork or an exec to inherit.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            try:
                sender.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return  # nobody there, or its buffer is full; see the class


def _socket_address(value: str) -> str | None:
    if not value:
        return None
    if value.startswith("@"):
        # The abstract namespace of Linux, which has no file: "@" stands for the zero byte.
        return "\0" + value[1:]
    if value.startswith("/"):
        return value
    raise FatalError(f"NOTIFY_SOCKET {value!r} is neither a path nor an abstract socket ('@...')")


def _watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds, or None when no watchdog is set, or set for another process (a parent passed its environment on)."""
    value = environ.get("WATCHDOG_USEC", "")
    if not value:
        return None
    if not value.isdecimal() or not int(value):
        raise FatalError(f"WATCHDOG_USEC {value!r} is not a number of microseconds")
    # Without WATCHDOG_PID the watchdog is for whoever reads this, says sd_watchdog_enabled(3).
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(value) / 1_000_000


def _status(text: str) -> list[str]:
    """A line break would begin another assignment."""
    return [f"STATUS={' '.join(text.split())}"] if text.strip() else []
