"""RabbitMQ and PostgreSQL in containers, for machines that have Docker and not the programs."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fuseline.testing.servers.base import ServerUnavailable

try:
    from testcontainers.core import container as testcontainers
except ModuleNotFoundError:  # it is a dependency of the tests only
    HAS_TESTCONTAINERS = False
else:
    HAS_TESTCONTAINERS = True

RABBITMQ_IMAGE = "rabbitmq:3.13"
POSTGRES_IMAGE = "postgres:16"
_START_SECONDS = 120


@contextmanager
def rabbitmq_container() -> Iterator[str | None]:
    """The AMQP URL of a RabbitMQ in a container; None where there is no Docker or no testcontainers."""
    with _served(RABBITMQ_IMAGE, 5672, {}, b"AMQP\x00\x00\x09\x01") as address:
        yield address and f"amqp://guest:guest@{address}/%2F"


@contextmanager
def postgres_container() -> Iterator[str | None]:
    """The URL of a PostgreSQL in a container; None where there is no Docker or no testcontainers."""
    # The message "SSLRequest": a server that is up answers it with one byte.
    with _served(
        POSTGRES_IMAGE, 5432, {"POSTGRES_HOST_AUTH_METHOD": "trust"}, b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
    ) as address:
        yield address and f"postgresql://postgres@{address}/postgres"


@contextmanager
def _served(image: str, port: int, environment: dict[str, str], greeting: bytes) -> Iterator[str | None]:
    if not HAS_TESTCONTAINERS or not docker_answers():
        yield None
        return
    container = testcontainers.DockerContainer(image).with_exposed_ports(port)
    for name, value in environment.items():
        container = container.with_env(name, value)
    with container:
        host, outside_port = container.get_container_host_ip(), int(container.get_exposed_port(port))
        _wait_for_answer(image, host, outside_port, greeting)
        yield f"{host}:{outside_port}"


def docker_answers() -> bool:
    """Whether there is a Docker daemon that this user may talk to."""
    if shutil.which("docker") is None:
        return False
    try:
        asked = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            timeout=10,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


def _wait_for_answer(image: str, host: str, port: int, greeting: bytes) -> None:
    # Docker's proxy accepts connections long before the server inside does, so only an answer counts.
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=5) as connection:
                connection.sendall(greeting)
                if connection.recv(1):
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise ServerUnavailable(f"the container of {image} did not answer within {_START_SECONDS} s")
