"""What servers say about themselves, and what follows for us."""

from __future__ import annotations

import pytest

from fuseline.amqp.server import ServerInfo


def rabbit(version: str) -> ServerInfo:
    return ServerInfo.from_properties(
        {"product": "RabbitMQ", "version": version, "cluster_name": b"rabbit@h"}
    )


@pytest.mark.parametrize(
    ("version", "parts", "supported"),
    [
        ("3.10.8", (3, 10, 8), True),
        ("3.9.29", (3, 9, 29), False),
        ("4.0.0-beta.5", (4, 0, 0), True),
        ("4.3.6+1", (4, 3, 6), True),
        ("10.0", (10, 0), True),
        ("unknown", (), False),
    ],
)
def test_versions(version: str, parts: tuple[int, ...], supported: bool) -> None:
    server = rabbit(version)
    assert server.version_parts == parts
    assert server.supported is supported
    assert str(server) == f"RabbitMQ {version}"
    assert server.cluster_name == "rabbit@h"


def test_features_come_with_versions() -> None:
    old, middle, new = rabbit("3.10.8"), rabbit("4.0.5"), rabbit("4.3.6")
    for feature, since in {
        "consumer_timeout_argument": new,
        "consumer_timeout_cancels": new,
        "delivery_limit_by_default": middle,
        "quorum_priorities": middle,
        "passive_declare_needs_permission": new,
    }.items():
        found = [getattr(server, feature) for server in (old, middle, new)]
        assert found == [False, since is middle, True], feature


def test_a_server_that_is_no_rabbitmq_has_none_of_it() -> None:
    for properties in (None, {}, {"product": "LavinMQ", "version": "9.9"}):
        server = ServerInfo.from_properties(properties)
        assert not server.supported
        assert not server.quorum_priorities
    assert str(ServerInfo("", "")) == "unknown server"
