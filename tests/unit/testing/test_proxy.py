"""What a test may count on that puts `TcpProxy` between a client and a server; over real sockets."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from fuseline.testing.proxy import TcpProxy, Where
from fuseline.testing.proxy.conditions import Conditions

WAIT_SECONDS = 60.0


class Server:
    """A listening socket whose connections the test reads and writes by itself."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(WAIT_SECONDS)
        self.port = self.socket.getsockname()[1]
        self._opened: list[socket.socket] = []

    def accept(self) -> socket.socket:
        accepted, _ = self.socket.accept()
        return self.keep(accepted)

    def keep(self, one: socket.socket) -> socket.socket:
        one.settimeout(WAIT_SECONDS)
        self._opened.append(one)
        return one

    def close(self) -> None:
        for one in (self.socket, *self._opened):
            one.close()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", server.port) as one:
        yield one


def connect(proxy: TcpProxy, server: Server) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection through the proxy."""
    client = server.keep(socket.create_connection((proxy.host, proxy.port), WAIT_SECONDS))
    return client, server.accept()


def receive(one: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, or what came before the end."""
    data = b""
    while len(data) < size and (part := one.recv(size - len(data))):
        data += part
    return data


def send_until_it_waits(one: socket.socket) -> int:
    """Send for as long as the kernel takes it at once; how many bytes it took."""
    sent = 0
    while sent < 64 * 1024 * 1024:
        try:
            sent += one.send(b"x" * 16_384)
        except BlockingIOError:
            return sent
    raise AssertionError("whoever sends never has to wait")


def is_silent(one: socket.socket) -> bool:
    """Whether nothing has arrived; only of use where what was sent before has surely met the proxy."""
    one.setblocking(False)
    try:
        one.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        one.settimeout(WAIT_SECONDS)
    return False


def test_bytes_pass_both_ways_unchanged_and_are_counted(proxy: TcpProxy, server: Server) -> None:
    client, served = connect(proxy, server)
    sent = os.urandom(3_000_000)
    sender = threading.Thread(target=client.sendall, args=(sent,))
    sender.start()
    assert receive(served, len(sent)) == sent
    sender.join()
    served.sendall(b"answer")
    assert receive(client, 6) == b"answer"
    assert (proxy.bytes_to_server, proxy.bytes_to_client) == (len(sent), 6)
    assert (proxy.connections_open, proxy.connections_total) == (1, 1)


def test_one_side_may_end_and_still_listen(proxy: TcpProxy, server: Server) -> None:
    client, served = connect(proxy, server)
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert receive(served, 100) == b"question"
    served.sendall(b"answer")
    served.close()
    assert receive(client, 100) == b"answer"
    assert proxy.bytes_to_client == 6


@pytest.mark.parametrize("rst", [True, False])
def test_cut_ends_every_connection_on_both_sides_and_takes_new_ones(
    proxy: TcpProxy, server: Server, rst: bool
) -> None:
    pairs = [connect(proxy, server) for _ in range(3)]
    assert proxy.connections_open == 3
    assert proxy.cut(rst=rst) == 3
    assert proxy.connections_open == 0
    for end in (end for pair in pairs for end in pair):
        if rst:
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        else:
            assert end.recv(1) == b""
    assert proxy.cut() == 0
    client, served = connect(proxy, server)
    client.sendall(b"again")
    assert receive(served, 5) == b"again"
    assert proxy.connections_total == 4


def test_a_reset_by_the_server_is_handed_on(proxy: TcpProxy, server: Server) -> None:
    client, served = connect(proxy, server)
    served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    served.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert proxy.connections_open == 0


def test_a_server_that_is_away_is_a_reset(server: Server) -> None:
    server.socket.close()

    def ask(proxy: TcpProxy) -> None:
        # The reset may come as early as in connecting.
        server.keep(socket.create_connection((proxy.host, proxy.port), WAIT_SECONDS)).recv(1)

    with TcpProxy("127.0.0.1", server.port) as proxy, pytest.raises(ConnectionResetError):
        ask(proxy)


def test_refuse_keeps_the_port_and_what_is_connected(proxy: TcpProxy, server: Server) -> None:
    client, served = connect(proxy, server)
    for _ in range(2):
        proxy.refuse()
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((proxy.host, proxy.port), WAIT_SECONDS)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((proxy.host, proxy.port))
        client.sendall(b"still here")
        assert receive(served, 10) == b"still here"
        proxy.accept()
        connect(proxy, server)


@pytest.mark.parametrize("where", ["to_server", "to_client", "both"])
def test_freeze_lets_nothing_through_and_thaw_delivers_what_waited(
    proxy: TcpProxy, server: Server, where: Where
) -> None:
    client, served = connect(proxy, server)
    ways = {"to_server": (client, served), "to_client": (served, client)}
    proxy.freeze(where)
    for sender, receiver in ways.values():
        sender.sendall(b"one")
        if (sender is client and where == "to_client") or (sender is served and where == "to_server"):
            assert receive(receiver, 3) == b"one"
    for way, (_, receiver) in ways.items():
        if where in (way, "both"):
            # A later call has been round the proxy's thread, so that what was sent before has met it.
            assert getattr(proxy, f"bytes_{way}") == 0
            assert is_silent(receiver)
    assert proxy.connections_open == 1
    proxy.thaw()
    for way, (sender, receiver) in ways.items():
        sender.sendall(b"two")
        assert receive(receiver, 6 if where in (way, "both") else 3)[-3:] == b"two"
    assert (proxy.bytes_to_server, proxy.bytes_to_client) == (6, 6)


def test_a_frozen_way_makes_who_sends_wait(proxy: TcpProxy, server: Server) -> None:
    """P6: the proxy does not keep what it holds back; it is left to the sender."""
    client, served = connect(proxy, server)
    proxy.freeze()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    client.setblocking(False)
    sent = send_until_it_waits(client)
    proxy.thaw()
    assert len(receive(served, sent)) == sent


def test_who_closes_in_the_frost_is_not_heard_before_the_thaw(proxy: TcpProxy, server: Server) -> None:
    client, served = connect(proxy, server)
    proxy.freeze()
    client.close()
    assert proxy.connections_open == 1
    assert is_silent(served)
    proxy.thaw()
    assert served.recv(1) == b""


def test_a_peer_that_is_gone_is_not_told_against_the_frozen_way(proxy: TcpProxy, server: Server) -> None:
    """Half-open: the server goes on sending to a client that has long reset its end."""
    client, served = connect(proxy, server)
    proxy.freeze("to_server")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    client.close()
    for _ in range(50):
        served.sendall(b"x" * 100_000)
    assert proxy.connections_open == 1
    assert is_silent(served)
    proxy.thaw()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        receive(served, 1)
    assert proxy.connections_open == 0


def test_what_a_frost_loses_is_cut_at_the_thaw(proxy: TcpProxy, server: Server) -> None:
    client, served = connect(proxy, server)
    proxy.freeze(lose=True)
    client.sendall(b"lost")
    proxy.thaw()
    for end in (client, served):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    proxy.freeze()
    proxy.thaw()
    client, served = connect(proxy, server)
    client.sendall(b"kept")
    assert receive(served, 4) == b"kept"


def test_a_connection_made_in_the_frost_reaches_the_server_afterwards(
    proxy: TcpProxy, server: Server
) -> None:
    proxy.freeze()
    client = server.keep(socket.create_connection((proxy.host, proxy.port), WAIT_SECONDS))
    client.sendall(b"early")
    server.socket.settimeout(0.05)
    with pytest.raises(TimeoutError):
        server.accept()
    server.socket.settimeout(WAIT_SECONDS)
    proxy.heal()
    assert receive(server.accept(), 5) == b"early"


def test_latency_delays_in_order_and_heal_lets_go_at_once(proxy: TcpProxy, server: Server) -> None:
    client, served = connect(proxy, server)
    proxy.latency(0.1, jitter_seconds=0.2)
    began = time.monotonic()
    sent = bytes(range(20))
    for number in sent:
        client.sendall(bytes([number]))
    assert receive(served, 20) == sent
    assert time.monotonic() - began >= 0.1
    proxy.latency(3_600)
    client.sendall(b"late")
    assert proxy.bytes_to_server == 20
    proxy.heal()
    assert receive(served, 4) == b"late"


def test_throttle_bounds_a_direction_and_makes_the_sender_wait(proxy: TcpProxy, server: Server) -> None:
    client, served = connect(proxy, server)
    proxy.throttle(100_000, "to_client")
    began = time.monotonic()
    served.sendall(b"x" * 50_000)
    assert len(receive(client, 50_000)) == 50_000
    assert time.monotonic() - began >= 0.4
    client.sendall(b"x" * 1_000_000)  # the other direction is not bounded
    assert len(receive(served, 1_000_000)) == 1_000_000
    proxy.throttle(1)
    served.setblocking(False)
    sent = send_until_it_waits(served)
    proxy.throttle(None)
    assert len(receive(client, sent)) == sent


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
def test_cut_after_ends_a_connection_in_the_middle_once(
    proxy: TcpProxy, server: Server, direction: str
) -> None:
    for again in (False, True):
        client, served = connect(proxy, server)
        sender, receiver = (client, served) if direction == "to_server" else (served, client)
        if not again:
            proxy.cut_after(7, "to_server" if direction == "to_server" else "to_client")
            sender.sendall(b"0123456789")
            assert receive(receiver, 100) == b"0123456"
            with pytest.raises(ConnectionResetError):
                sender.recv(1)
        else:
            sender.sendall(b"0123456789")
            assert receive(receiver, 10) == b"0123456789"


def test_heal_makes_everything_normal(proxy: TcpProxy, server: Server) -> None:
    proxy.refuse()
    proxy.freeze("to_client", lose=True)
    proxy.latency(3_600)
    proxy.throttle(1)
    proxy.cut_after(1)
    proxy.heal()
    client, served = connect(proxy, server)
    client.sendall(b"x" * 100_000)
    assert len(receive(served, 100_000)) == 100_000
    served.sendall(b"answer")
    assert receive(client, 6) == b"answer"


def test_it_may_be_used_from_many_threads(proxy: TcpProxy, server: Server) -> None:
    pairs = [connect(proxy, server) for _ in range(4)]
    errors: list[BaseException] = []

    def disturb() -> None:
        try:
            for _ in range(50):
                proxy.freeze()
                proxy.latency(0.001)
                proxy.heal()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=disturb) for _ in range(4)]
    threads += [threading.Thread(target=client.sendall, args=(b"x" * 500_000,)) for client, _ in pairs]
    for thread in threads:
        thread.start()
    for _, served in pairs:
        assert receive(served, 500_000) == b"x" * 500_000
    for thread in threads:
        thread.join()
    assert not errors


def test_closing_gives_back_threads_and_descriptors_and_it_may_start_again(server: Server) -> None:
    def descriptors() -> int:
        return len(os.listdir("/dev/fd"))

    proxy = TcpProxy("127.0.0.1", server.port)
    with pytest.raises(RuntimeError, match="not started"):
        _ = proxy.port
    with pytest.raises(RuntimeError, match="does not run"):
        proxy.cut()
    before = (threading.active_count(), descriptors())
    ports = set()
    for _ in range(3):
        with proxy:
            assert proxy.start() is proxy
            ports.add(proxy.port)
            client, served = connect(proxy, server)
            proxy.freeze()
        for end in (client, served):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
            end.close()
        proxy.close()
        assert (threading.active_count(), descriptors()) == before
    assert len(ports) == 1
    assert proxy.connections_total == 3
    assert proxy.connections_open == 0


@pytest.mark.parametrize(
    ("url", "through"),
    [
        ("amqp://guest:p%40ss@localhost:5672/%2F", "amqp://guest:p%40ss@{}/%2F"),
        ("amqps://rabbit/v?heartbeat=5&connection_attempts=1", "amqps://{}/v?heartbeat=5&connection_attempts=1"),
        ("postgresql://postgres@127.0.0.1:5433/app", "postgresql://postgres@{}/app"),
        ("postgresql+psycopg://u@db/app?host=other&sslmode=disable", "postgresql+psycopg://u@{}/app?sslmode=disable"),
        ("http://[::1]:8000/runs", "http://{}/runs"),
    ],
)  # fmt: skip
def test_url_is_the_same_address_through_the_proxy(proxy: TcpProxy, url: str, through: str) -> None:
    assert proxy.url(url) == through.format(f"127.0.0.1:{proxy.port}")


@pytest.mark.parametrize(
    "url", ["localhost:5672", "", "postgresql:///app", "amqp://a:1/,amqp://b:1/x@c", "amqp://a,b/"]
)
def test_what_is_no_single_address_is_refused(proxy: TcpProxy, url: str) -> None:
    with pytest.raises(ValueError, match="one URL"):
        proxy.url(url)


def test_wrong_arguments_are_refused(proxy: TcpProxy) -> None:
    with pytest.raises(ValueError, match="direction"):
        proxy.freeze("sideways")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        proxy.latency(-1)
    with pytest.raises(ValueError, match="above 0"):
        proxy.throttle(0)
    with pytest.raises(ValueError, match="cut_after"):
        proxy.cut_after(0)


def test_conditions_decide_what_passes() -> None:
    conditions = Conditions()
    assert conditions.wait_seconds("to_server", 10.0, 0.5, 99.0, 10.0) == 0.0
    conditions.latency_seconds, conditions.jitter_seconds = 1.0, 2.0
    assert conditions.wait_seconds("to_server", 10.0, 0.5, 0.0, 10.5) == 1.5
    conditions.bytes_per_second["to_server"] = 1_000.0
    assert conditions.wait_seconds("to_server", 10.0, 0.5, 15.0, 10.5) == 4.5
    assert conditions.portion("to_server", 10_000) == 50
    assert conditions.portion("to_client", 10_000) == 10_000
    conditions.cut_after["to_client"] = 3
    assert conditions.portion("to_client", 10_000) == 3
    assert [conditions.sent("to_client", 2), conditions.sent("to_client", 1)] == [False, True]
    assert not conditions.sent("to_client", 100)
    conditions.frozen.add("to_server")
    assert conditions.wait_seconds("to_server", 10.0, 0.5, 0.0, 1e9) == float("inf")
