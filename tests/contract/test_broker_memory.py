"""MemoryBroker over the memory storage keeps the contract of every broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fuseline.broker import Broker, MemoryBroker
from fuseline.clock import ManualClock
from fuseline.testing.broker_contract import BrokerContract, BrokerTimeContract


class TestMemoryBroker(BrokerContract):
    @pytest.fixture
    def broker(self) -> Iterator[Broker]:
        with MemoryBroker() as broker:
            yield broker


class TestMemoryBrokerTime(BrokerTimeContract):
    @pytest.fixture(autouse=True)
    def _clock(self) -> None:
        self.clock = ManualClock()

    @pytest.fixture
    def broker(self) -> Iterator[Broker]:
        with MemoryBroker(clock=self.clock) as broker:
            yield broker

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
