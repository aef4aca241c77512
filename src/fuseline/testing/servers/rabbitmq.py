"""A private RabbitMQ node."""

from __future__ import annotations

import re
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable
from glob import glob
from pathlib import Path

from fuseline.testing.servers.administration import Administration
from fuseline.testing.servers.base import LOOPBACK, PrivateServer, ServerUnavailable, free_ports
from fuseline.testing.servers.epmd import Epmd
from fuseline.testing.servers.installation import Installation

# Debian's programs on the PATH are wrappers that drop HOME, and with it the node's own cookie; the real ones are here.
_PLACES = (
    "/usr/lib/rabbitmq/bin",
    "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin",
    "/opt/rabbitmq/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
)
_AMQP_GREETING = b"AMQP\x00\x00\x09\x01"
_LOOPBACK_ERLANG = "{127,0,0,1}"
_MAX_MOVES = 3
"""Times that a node looks for other ports before its first start is over."""


def find_rabbitmq_installation(root: Path | None = None) -> Installation | None:
    """The installed RabbitMQ, or the one inside the folder `root` (a whole file system to chroot into); else None."""
    for place in _PLACES:
        for found in sorted(glob(str(root or "") + place), reverse=True):
            if (Path(found) / "rabbitmq-server").exists():
                inside = Path(found) if root is None else Path("/") / Path(found).relative_to(root)
                return Installation(inside, user="rabbitmq", root=root)
    if root is None and (program := shutil.which("rabbitmq-server")):
        return Installation(Path(program).parent, user="rabbitmq")
    return None


class PrivateRabbitMQ(PrivateServer, Administration):
    """A RabbitMQ node with stock settings and no plugins, at `url` (user and password `guest`).

    It has its own node name, cookie, epmd and ports, so that several run at once and none meets the machine's own.
    Nodes of a cluster share an `epmd`, and with it the cookie; whoever made it ends it. `configuration` is added to
    `rabbitmq.conf`, a line each. Raises `ServerUnavailable` when RabbitMQ is not installed.
    """

    name = "RabbitMQ"
    _stop_signal = signal.SIGTERM

    def __init__(
        self,
        installation: Installation | None = None,
        timeout_seconds: float = 90,
        *,
        epmd: Epmd | None = None,
        configuration: Iterable[str] = (),
    ) -> None:
        found = installation or find_rabbitmq_installation()
        if found is None:
            raise ServerUnavailable(
                "RabbitMQ is not installed: install rabbitmq-server (scripts/ensure-servers does, as root on Debian)"
            )
        super().__init__(found, timeout_seconds)
        self.configuration = list(configuration)
        self._epmd = epmd or Epmd(found)
        self._shares_epmd = epmd is not None
        self._node = f"fuseline-{secrets.token_hex(6)}@localhost"
        self._port = self._dist_port = 0
        self._moves = _MAX_MOVES

    @property
    def node(self) -> str:
        """The node's name, as other nodes and RabbitMQ's tools have it."""
        return self._node

    @property
    def port(self) -> int:
        """The AMQP port on 127.0.0.1; known from the first `start` on and then constant."""
        return self._port

    @property
    def url(self) -> str:
        """The default virtual host's address."""
        return self.url_for("/")

    def url_for(self, virtual_host: str) -> str:
        """The address of one virtual host."""
        if not self._port:
            raise ServerUnavailable("RabbitMQ was not started yet, so it has no address")
        return f"amqp://guest:guest@{LOOPBACK}:{self._port}/{virtual_host.replace('/', '%2F')}"

    @property
    def log_file(self) -> Path:
        """The node's log; what it prints before it can log is in `console.log` beside it."""
        logs = self.installation.outside(self.folder) / "log"
        return next(iter(sorted(logs.glob("fuseline-*.log"))), logs / "console.log")

    def rabbitmqctl(self, *arguments: str, timeout_seconds: float = 60) -> str:
        """Run `rabbitmqctl` on this node and return what it printed; `RuntimeError` if it failed. Takes about 1 s."""
        return self.installation.run(
            "rabbitmqctl",
            *arguments,
            environment=self._environment(),
            folder=self.folder,
            timeout_seconds=timeout_seconds,
        )

    def add_virtual_host(self, name: str) -> str:
        """Make a virtual host that `guest` may do everything in, and return its address."""
        self.rabbitmqctl("add_vhost", name)
        self.rabbitmqctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        return self.url_for(name)

    def version(self) -> tuple[int, ...]:
        """The node's version, (3, 10, 8) say."""
        said = self.rabbitmqctl("version")
        numbers = re.search(r"(\d+)\.(\d+)\.(\d+)", said)
        if numbers is None:
            raise RuntimeError(f"rabbitmqctl version said {said!r}")
        return tuple(int(number) for number in numbers.groups())

    def _prepare(self) -> None:
        outside = self.installation.outside(self.folder)
        for name in ("mnesia", "log", "conf.d"):
            (outside / name).mkdir()
        self._find_ports()
        (outside / "enabled_plugins").write_text("[].\n")
        (outside / "rabbitmq-env.conf").write_text("")
        cookie = outside / ".erlang.cookie"
        cookie.write_text(self._epmd.cookie)
        cookie.chmod(0o400)
        self.give(outside)

    def _find_ports(self) -> None:
        self._port, self._dist_port = free_ports(2)
        lines = [
            f"listeners.tcp.1 = {LOOPBACK}:{self._port}",
            "log.file.level = warning",
            "log.console = false",
            *self.configuration,
        ]
        outside = self.installation.outside(self.folder)
        (outside / "rabbitmq.conf").write_text("".join(f"{line}\n" for line in lines))

    def _may_launch_again(self) -> bool:
        """Somebody took a port since it was found free. As long as nobody knows the address, it can be another one."""
        if not self._moves or "eaddrinuse" not in self.log_tail():
            return False
        self._moves -= 1
        self._find_ports()
        return True

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "HOME": folder,
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_PID_FILE": f"{folder}/rabbitmq.pid",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONFIG_FILES": f"{folder}/conf.d",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/rabbitmq-env.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            # No busy waiting between messages: the machine belongs to those who test.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"-kernel inet_dist_use_interface {_LOOPBACK_ERLANG} +sbwt none +sbwtdcpu none +sbwtdio none"
            ),
            "RABBITMQ_CTL_ERL_ARGS": f"-kernel inet_dist_use_interface {_LOOPBACK_ERLANG}",
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(self._epmd.port),
            # Makes the start script become the Erlang machine, so that its process id is the server's.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _launch(self) -> subprocess.Popen[bytes]:
        outside = self.installation.outside(self.folder)
        with (outside / "log" / "console.log").open("ab") as output:
            self._epmd.start(self._environment(), self.folder, output)
            return self.installation.start(
                "rabbitmq-server", environment=self._environment(), folder=self.folder, output=output
            )

    def _answers(self) -> bool:
        # Asking costs an Erlang start, so that the cheap question comes first. It is not enough: the node greets
        # a little before its boot is over, and one that is stopped just then counts as crashed.
        answers = self._greets() and self._booted()
        if answers:
            self._moves = 0
        return answers

    def serves(self) -> bool:
        """Whether it takes clients' connections now."""
        return self.running and self._greets()

    def _greets(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self._port), timeout=5) as connection:
                connection.sendall(_AMQP_GREETING)
                return bool(connection.recv(1))
        except OSError:
            return False

    def _booted(self) -> bool:
        try:
            self.rabbitmqctl("await_startup", timeout_seconds=self.timeout_seconds)
        except (RuntimeError, subprocess.TimeoutExpired):
            return False
        return True

    def _guarded_pids(self) -> list[int]:
        epmd = self._epmd.pid
        return super()._guarded_pids() + ([] if epmd is None else [epmd])

    def _end(self, how: signal.Signals) -> None:
        super()._end(how)
        if not self._shares_epmd:
            self._epmd.stop()
        if self._folder is not None:
            self._note_guarded()
