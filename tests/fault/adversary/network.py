"""Faults of the network between one party and RabbitMQ or PostgreSQL, by proxies of ours."""

from __future__ import annotations

from collections.abc import Callable

from fuseline.testing.proxy import TcpProxy
from tests.fault.adversary.base import AWAY, STORAGE_AWAY, Evidence, Fault, Stage

Act = Callable[[Stage, list[TcpProxy]], str | None]


def _on(server: str, act: Act, pattern: str) -> Callable[[Stage], Evidence]:
    """`act` on all lines of one party to `server`; what it returns is evidence where the logs say nothing."""

    def fault(stage: Stage) -> Evidence:
        lines = stage.world.lines
        name = stage.random.choice([one for one in sorted(lines) if one.endswith(server)])
        stage.target = name
        proxies = lines[name]
        before = sum(proxy.connections_total for proxy in proxies)
        try:
            seen = act(stage, proxies)
        finally:
            for proxy in proxies:
                proxy.heal()
        logged = stage.logged(pattern, 1.0)

        def evidence() -> str | None:
            made = sum(proxy.connections_total for proxy in proxies) - before
            return logged() or seen or (f"{made} connections made anew" if made else None)

        return evidence

    return fault


def _cut(stage: Stage, proxies: list[TcpProxy]) -> str | None:
    count = sum(proxy.cut(rst=stage.random.random() < 0.7) for proxy in proxies)
    return f"{count} connections cut" if count else None


def _refuse(stage: Stage, proxies: list[TcpProxy]) -> str | None:
    for proxy in proxies:
        proxy.refuse()
    seen = _cut(stage, proxies)
    stage.hold(1.0, 5.0)
    return seen


def _half_open(stage: Stage, proxies: list[TcpProxy]) -> str | None:
    for proxy in proxies:
        proxy.freeze(lose=True)
    stage.hold(2.0, 8.0)
    return None


def _frozen_one_way(stage: Stage, proxies: list[TcpProxy]) -> str | None:
    way = stage.random.choice(("to_server", "to_client"))
    before = _passed(proxies, other(way))
    for proxy in proxies:
        proxy.freeze("to_server" if way == "to_server" else "to_client")
    stage.hold(2.0, 7.0)
    after = _passed(proxies, other(way))
    return f"{after - before} bytes the other way meanwhile" if after > before else None


def other(way: str) -> str:
    """The other direction."""
    return "to_client" if way == "to_server" else "to_server"


def _passed(proxies: list[TcpProxy], way: str) -> int:
    return sum(proxy.bytes_to_server if way == "to_server" else proxy.bytes_to_client for proxy in proxies)


def _slowed(stage: Stage, proxies: list[TcpProxy]) -> str | None:
    before = _passed(proxies, "to_server") + _passed(proxies, "to_client")
    stage.hold(2.0, 6.0)
    passed = _passed(proxies, "to_server") + _passed(proxies, "to_client") - before
    return f"{passed} bytes slowed down" if passed else None


def _latency(stage: Stage, proxies: list[TcpProxy]) -> str | None:
    for proxy in proxies:
        proxy.latency(stage.random.uniform(0.05, 0.6), 0.2)
    return _slowed(stage, proxies)


def _slow_reads(stage: Stage, proxies: list[TcpProxy]) -> str | None:
    for proxy in proxies:
        proxy.throttle(stage.random.choice((300, 2_000, 8_000)), "to_client")
    return _slowed(stage, proxies)


def _cut_in_a_frame(stage: Stage, proxies: list[TcpProxy]) -> str | None:
    way = stage.random.random() < 0.5
    for proxy in proxies:
        proxy.cut_after(stage.random.randint(1, 900), "to_server" if way else "to_client")
    stage.hold(1.5, 3.0)
    return None


FAULTS = [
    Fault("TCP connections to RabbitMQ cut", _on("RabbitMQ", _cut, AWAY), 4),
    Fault("TCP connections to RabbitMQ cut and refused", _on("RabbitMQ", _refuse, AWAY), 2),
    Fault("half-open connections to RabbitMQ", _on("RabbitMQ", _half_open, AWAY), 3),
    Fault("one way to RabbitMQ frozen", _on("RabbitMQ", _frozen_one_way, AWAY), 2),
    Fault("latency to RabbitMQ", _on("RabbitMQ", _latency, AWAY), 2),
    Fault("slow reads from RabbitMQ", _on("RabbitMQ", _slow_reads, AWAY), 2),
    Fault("TCP connection to RabbitMQ cut within a frame", _on("RabbitMQ", _cut_in_a_frame, AWAY), 3),
    Fault("TCP connections to PostgreSQL cut", _on("PostgreSQL", _cut, STORAGE_AWAY), 3),
    Fault("half-open connections to PostgreSQL", _on("PostgreSQL", _half_open, STORAGE_AWAY), 2),
    Fault("latency to PostgreSQL", _on("PostgreSQL", _latency, STORAGE_AWAY), 1),
    Fault(
        "TCP connection to PostgreSQL cut within a message",
        _on("PostgreSQL", _cut_in_a_frame, STORAGE_AWAY),
        2,
    ),
]
