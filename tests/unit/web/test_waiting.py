"""Waiting for runs takes no thread away from anything else."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest

from fuseline.broker import HttpBroker, MemoryBroker
from fuseline.testing.flows import Player, graph
from fuseline.web import waiting as module
from fuseline.web.background import serving

SINGLE = graph("single", {"a": []})


@pytest.fixture
def broker() -> Iterator[MemoryBroker]:
    with MemoryBroker() as broker:
        yield broker


def test_many_who_wait_hold_up_nobody(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: the service has 40 threads for calls; 60 waiting requests leave them alone, and all of them get their answer."""
    monkeypatch.setattr(module, "_WAITERS", 20)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.05)
    run = broker.dispatch_workflow(SINGLE)
    states: list[str] = []
    limits = httpx.Limits(max_connections=None)
    with serving(broker) as url, httpx.Client(base_url=url, limits=limits, timeout=30) as client:

        def wait() -> None:
            answer = client.get(f"/runs/{run}/wait", params={"timeout_seconds": 20})
            states.append(answer.json()["state"])

        threads = [threading.Thread(target=wait) for _ in range(60)]
        for thread in threads:
            thread.start()
        with HttpBroker(url) as other:
            worker = Player(other, other.register_worker([SINGLE]))
            for _ in range(50):
                other.keep_alive(worker.worker_id)
            worker.do("a")
        for thread in threads:
            thread.join(30)
    assert states == ["SUCCEEDED"] * 60


def test_who_finds_no_place_is_answered_in_time_too(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAITERS", 0)
    run = broker.dispatch_workflow(SINGLE)
    with serving(broker) as url, httpx.Client(base_url=url) as client:
        assert client.get(f"/runs/{run}/wait", params={"timeout_seconds": 0.1}).status_code == 204
        assert client.get("/runs/none/wait", params={"timeout_seconds": 0.1}).status_code == 404
