"""A private cluster of RabbitMQ nodes on one machine."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from fuseline.testing.servers.administration import Alarm
from fuseline.testing.servers.base import ServerUnavailable
from fuseline.testing.servers.epmd import Epmd
from fuseline.testing.servers.installation import Installation
from fuseline.testing.servers.rabbitmq import PrivateRabbitMQ

PAUSE_MINORITY: Final = "pause_minority"
_POLL_SECONDS: Final = 0.1
_LEADER: Final = """
case rabbit_amqqueue:lookup(rabbit_misc:r(<<"%(host)s">>, queue, <<"%(queue)s">>)) of
    {ok, Queue} ->
        case amqqueue:get_pid(Queue) of
            {Name, _} -> ra_leaderboard:lookup_leader(Name);
            Process -> node(Process)
        end;
    _ -> error(no_such_queue)
end.
"""
# Whether every one runs, is connected with all others, and takes all for running members of its cluster.
_WHOLE: Final = """
Nodes = [%(nodes)s],
List = case erlang:function_exported(rabbit_nodes, list_running, 0) of true -> list_running; _ -> all_running end,
lists:all(fun(Node) ->
    Running = rpc:call(Node, rabbit_nodes, List, []),
    Seen = rpc:call(Node, erlang, nodes, []),
    is_list(Running) andalso is_list(Seen) andalso Nodes -- Running =:= [] andalso Nodes -- [Node | Seen] =:= []
end, Nodes).
"""


class PrivateRabbitMQCluster:
    """`nodes` RabbitMQ nodes that form a cluster, in temporary folders, on loopback only.

    Each of `nodes` is a `PrivateRabbitMQ`, to be killed, stopped and started by itself. `url` has the addresses of all
    with commas between, as Fuseline takes them. `close` (or leaving a `with` block) stops them and removes the data; if
    the owning process dies first, guards do that.

    `partition_handling` is what a node does that sees only a minority of the others (`cluster_partition_handling`).
    With pause_minority it stops serving clients until it sees the others again; RabbitMQ's own default,
    `ignore`, leaves a cluster split after the network is whole again, until somebody restarts nodes.

    `member` has the operator's commands that concern the whole cluster (`queues`, `connections`, `purge_queue` and so
    on). The methods are for one thread at a time, and wait no longer than `timeout_seconds`.
    """

    def __init__(
        self,
        nodes: int = 3,
        installation: Installation | None = None,
        *,
        partition_handling: str = PAUSE_MINORITY,
        configuration: Iterable[str] = (),
        timeout_seconds: float = 180,
    ) -> None:
        if nodes < 1:
            raise ValueError(f"a cluster has one node or more, not {nodes}")
        self.timeout_seconds = timeout_seconds
        first = PrivateRabbitMQ(installation, timeout_seconds)
        self.installation = first.installation
        self._epmd = Epmd(self.installation)
        self._handling = partition_handling
        lines = [*configuration, f"cluster_partition_handling = {partition_handling}"]
        self.nodes = [
            PrivateRabbitMQ(self.installation, timeout_seconds, epmd=self._epmd, configuration=lines)
            for _ in range(nodes)
        ]
        peers = ["cluster_formation.peer_discovery_backend = classic_config"]
        peers += [
            f"cluster_formation.classic_config.nodes.{number} = {node.node}"
            for number, node in enumerate(self.nodes, 1)
        ]
        for node in self.nodes:
            node.configuration += peers
        # By index, with the process that it was done to.
        self._without_app: dict[int, int] = {}
        self._parted: dict[int, int] = {}

    # -- where

    @property
    def urls(self) -> list[str]:
        """The address of each node, in the order of `nodes`."""
        return [node.url for node in self.nodes]

    @property
    def url(self) -> str:
        """All addresses, with commas between."""
        return ",".join(self.urls)

    # -- life

    def start(self) -> Self:
        """Start the nodes that do not run, all at once, and wait until each has found the others."""
        self.start_nodes(*range(len(self.nodes)))
        return self

    def start_nodes(self, *indexes: int) -> None:
        """Start these nodes at once: one that ended before others waits for them, so that alone it may wait in vain."""
        stopped = [index for index in indexes if not self.nodes[index].running]
        try:
            with ThreadPoolExecutor(len(self.nodes)) as pool:
                list(pool.map(lambda index: self.nodes[index].start(), stopped))
            if stopped and len(self._at_work()) == len(self.nodes):
                self._wait(self._is_whole, "the nodes do not find each other")
        except ServerUnavailable:
            self.close()
            raise

    def close(self) -> None:
        """End all nodes and remove their folders."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(_throw_away, self.nodes))
        self._epmd.stop()
        self._parted.clear()
        self._without_app.clear()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- faults

    def partition(self, index: int) -> None:
        """Part one node from all others, as a network does; clients reach all of them as before.

        Returns when the node has stopped serving clients, where it is one that pauses.
        """
        node = self.nodes[index]
        # A node that expects another cookie of a peer takes no connection from it, and gets none.
        each = f"erlang:set_cookie(N, '{secrets.token_hex(16)}'), erlang:disconnect_node(N)"
        node.ctl("eval", _for_each(self._others(node), each))
        self._parted[index] = node.pid
        if self._handling == PAUSE_MINORITY and len(self.nodes) > 1:
            self._wait(lambda: not node.serves(), f"{node.node} goes on serving clients without the others")

    def heal(self) -> None:
        """End all partitions. Returns when every node that was parted serves clients and sees the others again.

        With another handling than pause_minority it returns when the network is whole: the nodes may then stay apart
        until somebody restarts them.
        """
        if not self._parted:
            return
        for index, pid in self._parted.items():
            node = self.nodes[index]
            if node.running and node.pid == pid:  # one that was started again knows nothing of it
                each = f"erlang:set_cookie(N, '{self._epmd.cookie}'), net_kernel:connect_node(N)"
                node.ctl("eval", _for_each(self._others(node), each))
        parted, self._parted = self._parted, {}
        working = self._at_work()
        if self._handling != PAUSE_MINORITY:
            return
        for index in working:
            if index in parted:
                self._wait(self.nodes[index].serves, f"{self.nodes[index].node} does not come back")
        if len(working) == len(self.nodes):
            self._wait(self._is_whole, "the nodes do not find each other again")

    def stop_app(self, index: int) -> None:
        """Stop RabbitMQ inside one node's process: it serves nobody and counts in no queue's majority."""
        self.nodes[index].stop_app()
        self._without_app[index] = self.nodes[index].pid

    def start_app(self, index: int) -> None:
        """Start it again, and return when it serves clients."""
        self.nodes[index].start_app()
        self._without_app.pop(index, None)

    def set_alarm(self, index: int, resource: Alarm) -> None:
        """Make one node's memory or disk space look scarce: whoever publishes is blocked, at every node."""
        self.nodes[index].set_alarm(resource)

    def clear_alarm(self, index: int, resource: Alarm) -> None:
        """The end of `set_alarm`."""
        self.nodes[index].clear_alarm(resource)

    def close_all_connections(self, reason: str = "closed by a test") -> None:
        """Close all clients' connections, at every node."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(lambda index: self.nodes[index].close_all_connections(reason), self._at_work()))

    # -- looking

    @property
    def member(self) -> PrivateRabbitMQ:
        """The first node that is with the others: not stopped, and not parted. Raises `ServerUnavailable` if none is."""
        for index in self._at_work():
            return self.nodes[index]
        raise ServerUnavailable("no node of the cluster is with the others")

    def leader_of(self, queue: str, virtual_host: str = "/") -> int | None:
        """Which of `nodes` leads a quorum queue, or has a classic one; None while none does that runs.

        Raises `RuntimeError` when there is no such queue.
        """
        said = self.member.ctl("eval", _LEADER % {"host": virtual_host, "queue": queue})
        for index in self._at_work():
            if self.nodes[index].node in said:
                return index
        return None

    # -- inside

    def _others(self, node: PrivateRabbitMQ) -> list[str]:
        return [other.node for other in self.nodes if other is not node]

    def _at_work(self) -> list[int]:
        """Which nodes are with the others, as far as was done through this object; a restart ends a fault."""

        def holds(index: int, faults: dict[int, int]) -> bool:
            return faults.get(index) == self.nodes[index].pid

        return [
            index
            for index, node in enumerate(self.nodes)
            if node.running and not holds(index, self._parted) and not holds(index, self._without_app)
        ]

    def _is_whole(self) -> bool:
        names = ", ".join(f"'{node.node}'" for node in self.nodes)
        try:
            return "true" in self.member.ctl("eval", _WHOLE % {"nodes": names})
        except RuntimeError:
            return False

    def _wait(self, until: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + self.timeout_seconds
        while not until():
            if time.monotonic() > deadline:
                logs = "\n".join(node.log_tail(10) for node in self.nodes)
                raise ServerUnavailable(
                    f"{otherwise} within {self.timeout_seconds:g} s; their logs end:\n{logs}"
                )
            time.sleep(_POLL_SECONDS)


def _throw_away(node: PrivateRabbitMQ) -> None:
    # In order, each would hand over to the others; and nothing is to be kept.
    node.kill()
    node.close()


def _for_each(nodes: Sequence[str], what: str) -> str:
    names = ", ".join(f"'{node}'" for node in nodes)
    return f"[begin {what} end || N <- [{names}]]."
