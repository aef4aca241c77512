#!/usr/bin/env python3
"""Makes up passwords for compose.yaml: `.env`, and RabbitMQ's definitions with the passwords' hashes.

    python3 deploy/docker/prepare.py

Needs nothing but Python. It writes into the folder that it is in, and leaves a `.env` that is there as it is, so that
running it again (after an update of the definitions, say) changes no password.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFINITIONS = HERE.parent / "rabbitmq" / "definitions.json"


def variable(account: str) -> str:
    """The name of an account's password in `.env`: RABBITMQ_WORKER_PASSWORD for fuseline-worker."""
    return f"RABBITMQ_{account.removeprefix('fuseline-').upper()}_PASSWORD"


def password_hash(password: str, salt: bytes) -> str:
    """As RabbitMQ keeps it: base64 of the salt and SHA-256(salt + password)."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def read_environment(path: Path) -> dict[str, str]:
    """NAME=value lines of an environment file; empty without one."""
    if not path.exists():
        return {}
    lines = (line.partition("=") for line in path.read_text().splitlines() if not line.startswith("#"))
    return {name: value for name, sign, value in lines if sign}


def prepare(folder: Path) -> None:
    """Write `.env` and `definitions.json` into `folder`."""
    definitions = json.loads(DEFINITIONS.read_text())
    accounts = [user["name"] for user in definitions["users"]]
    names = ["POSTGRES_PASSWORD", *map(variable, accounts)]
    environment = read_environment(folder / ".env")
    missing = [name for name in names if name not in environment]
    if missing:
        # Letters and digits only, so that they can stand in an address as they are.
        environment |= {name: secrets.token_hex(16) for name in missing}
        path = folder / ".env"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name}={value}\n" for name, value in environment.items()))
    for user in definitions["users"]:
        password = environment[variable(user["name"])]
        # The salt follows from the password, so that the file, and with it what RabbitMQ has, stays the same.
        user["password_hash"] = password_hash(password, hashlib.sha256(password.encode()).digest()[:4])
    # RabbitMQ reads it as a user of its own, and it holds hashes of long random passwords.
    (folder / "definitions.json").write_text(json.dumps(definitions, indent=2) + "\n")


if __name__ == "__main__":
    prepare(HERE)
    sys.stderr.write(f"wrote {HERE / '.env'} and {HERE / 'definitions.json'}\n")
