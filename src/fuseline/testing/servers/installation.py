"""Where a server's programs are, and how to run them as the user that they want."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class Installation:
    """A folder of programs, `bin_dir`, and who runs them.

    Root runs them as `user`, the one that the package made (PostgreSQL refuses root, and RabbitMQ's files would be
    root's); anybody else runs them as oneself. `root` is a file system to `chroot` into, for a server that is
    installed in a folder of its own: then all paths, `bin_dir` too, are as seen from inside.
    """

    bin_dir: Path
    user: str
    root: Path | None = None

    def outside(self, path: Path) -> Path:
        """`path`, which is as the server sees it, as this process sees it."""
        return path if self.root is None else self.root / path.relative_to("/")

    def owner(self) -> tuple[int, int] | None:
        """(uid, gid) that the programs run under, None for one's own."""
        if os.geteuid() != 0:
            return None
        # Read by hand because a chroot has its own numbers.
        accounts = Path("/etc/passwd") if self.root is None else self.root / "etc/passwd"
        for line in accounts.read_text().splitlines():
            name, _, uid, gid, *_ = line.split(":")
            if name == self.user:
                return int(uid), int(gid)
        return None

    def start(
        self, program: str, *arguments: str, environment: Mapping[str, str], folder: Path, output: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        """Start `program` detached from this terminal; the process id is the server's own, not a wrapper's."""
        owner = self._identity()
        return subprocess.Popen(
            self._command(program, arguments, environment),
            cwd=self.outside(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A Ctrl-C is for whoever uses the server; the server is stopped in its turn.
            start_new_session=True,
            user=owner and owner[0],
            group=owner and owner[1],
            extra_groups=owner and [],
        )

    def run(
        self,
        program: str,
        *arguments: str,
        environment: Mapping[str, str],
        folder: Path,
        timeout_seconds: float = 60,
    ) -> str:
        """Run `program` to its end and return what it printed; raise `RuntimeError` with that if it failed."""
        owner = self._identity()
        done = subprocess.run(
            self._command(program, arguments, environment),
            cwd=self.outside(folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
            user=owner and owner[0],
            group=owner and owner[1],
            extra_groups=owner and [],
        )
        if done.returncode:
            said = (done.stderr + done.stdout).strip()
            raise RuntimeError(f"{program} {' '.join(arguments)} failed ({done.returncode}): {said}")
        return done.stdout

    def _command(self, program: str, arguments: Iterable[str], environment: Mapping[str, str]) -> list[str]:
        # The environment is spelled out and nothing of ours passed on: a RABBITMQ_ or PG variable of the caller's
        # must not reach a private server.
        found = str(self.bin_dir / program)
        if self.root is None and not Path(found).exists():
            found = shutil.which(program) or found
        settings = {"PATH": os.defpath + ":/usr/sbin:/sbin", "LANG": "C.UTF-8", **environment}
        if extra_path := os.environ.get("PATH"):
            settings["PATH"] = extra_path
        command = ["env", "-i", *(f"{name}={value}" for name, value in settings.items()), found, *arguments]
        if self.root is None:
            return command
        owner = self.owner()
        userspec = [] if owner is None else [f"--userspec={owner[0]}:{owner[1]}", "--groups="]
        return ["chroot", *userspec, str(self.root), *command]

    def _identity(self) -> tuple[int, int] | None:
        # Only root may chroot, so there chroot itself changes the user.
        return self.owner() if self.root is None else None
