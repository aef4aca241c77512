"""HttpBroker, over a real server on loopback with a MemoryBroker behind it, keeps the contract of every broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fuseline.broker import Broker, HttpBroker, MemoryBroker
from fuseline.clock import ManualClock
from fuseline.testing.broker_contract import BrokerContract, BrokerTimeContract
from fuseline.web.background import serving


class TestHttpBroker(BrokerContract):
    @pytest.fixture
    def broker(self) -> Iterator[Broker]:
        with MemoryBroker() as behind, serving(behind) as url, HttpBroker(url) as broker:
            yield broker


class TestHttpBrokerTime(BrokerTimeContract):
    @pytest.fixture(autouse=True)
    def _clock(self) -> None:
        self.clock = ManualClock()

    @pytest.fixture
    def broker(self) -> Iterator[Broker]:
        with MemoryBroker(clock=self.clock) as behind, serving(behind) as url, HttpBroker(url) as broker:
            yield broker

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
