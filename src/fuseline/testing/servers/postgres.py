"""A private PostgreSQL server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from glob import glob
from pathlib import Path

from fuseline.testing.servers.base import LOOPBACK, PrivateServer, ServerUnavailable, free_ports
from fuseline.testing.servers.installation import Installation

_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)
_DATABASE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_NOT_DURABLE = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n"


def find_postgres_installation() -> Installation | None:
    """The newest installed PostgreSQL, else None."""
    found = [Path(path) for place in _PLACES for path in glob(place) if Path(path, "initdb").exists()]
    if found:
        return Installation(max(found, key=_version_in), user="postgres")
    if program := shutil.which("initdb"):
        return Installation(Path(program).resolve().parent, user="postgres")
    return None


def _version_in(bin_dir: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", bin_dir.parent.name))


class PrivatePostgres(PrivateServer):
    """A PostgreSQL server with stock settings, and `dsn` as its address (user `postgres`, no password).

    `durable=False` turns fsync off: faster, and still safe against `kill`, but not against the loss of the machine.
    Raises `ServerUnavailable` when PostgreSQL is not installed, or when root has no user `postgres` to run it as.
    """

    name = "PostgreSQL"
    # SIGINT is "fast": clients are cut off, data is flushed. (SIGTERM would wait for the clients.)
    _stop_signal = signal.SIGINT

    def __init__(
        self, installation: Installation | None = None, *, durable: bool = True, timeout_seconds: float = 90
    ) -> None:
        found = installation or find_postgres_installation()
        if found is None:
            raise ServerUnavailable(
                "PostgreSQL is not installed: install postgresql (scripts/ensure-servers does, as root on Debian)"
            )
        if os.geteuid() == 0 and found.owner() is None:
            raise ServerUnavailable(f"PostgreSQL does not run as root, and there is no user {found.user!r}")
        super().__init__(found, timeout_seconds)
        self.durable = durable
        self._port = 0

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; known from the first `start` on and then constant."""
        return self._port

    @property
    def dsn(self) -> str:
        """The address of the database `postgres`, which is always there."""
        return self.dsn_for("postgres")

    @property
    def url(self) -> str:
        """The same as `dsn`."""
        return self.dsn

    def dsn_for(self, database: str) -> str:
        """The address of one database."""
        if not self._port:
            raise ServerUnavailable("PostgreSQL was not started yet, so it has no address")
        return f"postgresql://postgres@{LOOPBACK}:{self._port}/{database}"

    def create_database(self, name: str) -> str:
        """Make an empty database and return its address."""
        if not _DATABASE_NAME.fullmatch(name):
            raise ValueError(f"not a database name: {name!r} (lower case letters, digits and _, at most 63)")
        # Through template0, which nobody can be connected to, so that several can be made at once.
        self.run("createdb", *self._client_arguments(), "--template=template0", name)
        return self.dsn_for(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, with the connections to it."""
        self.run("dropdb", *self._client_arguments(), "--force", "--if-exists", name)

    def run(self, program: str, *arguments: str, timeout_seconds: float = 60) -> str:
        """Run one of PostgreSQL's own programs and return what it printed; `RuntimeError` if it failed."""
        return self.installation.run(
            program,
            *arguments,
            environment={"HOME": str(self.folder)},
            folder=self.folder,
            timeout_seconds=timeout_seconds,
        )

    @property
    def log_file(self) -> Path:
        """The server's log."""
        return self.installation.outside(self.folder) / "server.log"

    def _client_arguments(self) -> list[str]:
        return [f"--host={LOOPBACK}", f"--port={self._port}", "--username=postgres", "--no-password"]

    def _prepare(self) -> None:
        (self._port,) = free_ports(1)
        outside = self.installation.outside(self.folder)
        self.give(outside)
        self.run(
            "initdb",
            f"--pgdata={self.folder}/data",
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
            # What initdb writes is written once; the server has its own say below.
            "--no-sync",
        )
        with (outside / "data" / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '{LOOPBACK}'\nport = {self._port}\nunix_socket_directories = ''\n"
                "max_connections = 200\nlog_min_messages = warning\nlc_messages = 'C'\n"
            )
            settings.write("" if self.durable else _NOT_DURABLE)

    def _launch(self) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as output:
            return self.installation.start(
                "postgres",
                "-D",
                f"{self.folder}/data",
                environment={"HOME": str(self.folder)},
                folder=self.folder,
                output=output,
            )

    def _answers(self) -> bool:
        try:
            self.run("pg_isready", *self._client_arguments()[:2], "--quiet", timeout_seconds=10)
        except (RuntimeError, subprocess.TimeoutExpired):
            return False
        return True

    def _may_launch_again(self) -> bool:
        # After a crash the kernel may take a moment to let go of the old server's shared memory and lock file.
        return "is still in use" in self.log_tail(5) or "already exists" in self.log_tail(5)
