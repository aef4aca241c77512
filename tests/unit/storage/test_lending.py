"""Connections between two uses: taken again without the pool, and never kept from who waits for one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from fuseline.storage.sql import lending as lending_module
from fuseline.storage.sql import postgres
from fuseline.storage.sql.lending import Lending, Lent

Open = Callable[[int], Lending]


@pytest.fixture
def open_lending(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    monkeypatch.setattr(postgres, "POOL_SECONDS", 5.0)
    opened = []

    def open_one(pool_size: int) -> Lending:
        opened.append(Lending(postgres.postgres_engine(make_url(postgres_url), pool_size=pool_size)))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def test_who_comes_next_gets_the_connection_that_was_used_last(open_lending: Open) -> None:
    lending = open_lending(3)
    first, second = lending.take(), lending.take()
    assert first.driver is not second.driver
    lending.give_back(first)
    lending.give_back(second)
    assert lending.take() is second
    assert lending.take() is first


def test_who_waits_for_the_pool_gets_what_is_given_back(open_lending: Open) -> None:
    """P1: with one connection, one that is kept for later would be waited for until the pool gives up."""
    lending = open_lending(1)
    only = lending.take()
    got: list[Lent] = []
    waiting = threading.Thread(target=lambda: got.append(lending.take()))
    waiting.start()
    while not lending._waiting:
        waiting.join(0.001)
    lending.give_back(only)
    waiting.join(4.0)
    assert [one.driver for one in got] == [only.driver]
    assert got[0].prepared is only.prepared  # it knows what is prepared on it


def test_many_threads_share_a_few_connections(open_lending: Open) -> None:
    lending = open_lending(2)
    in_use: set[int] = set()
    most: list[int] = []

    def use() -> None:
        for _ in range(50):
            lent = lending.take()
            key = id(lent.driver)
            assert key not in in_use
            in_use.add(key)
            most.append(len(in_use))
            lent.driver.execute("SELECT 1")
            in_use.remove(key)
            lending.give_back(lent)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert len(most) == 300
    assert max(most) <= 2


def test_one_that_broke_takes_along_those_that_are_as_old(open_lending: Open) -> None:
    lending = open_lending(3)
    lents = [lending.take() for _ in range(3)]
    for lent in lents[:2]:
        lending.give_back(lent)
    lents[2].driver.close()
    lending.give_back(lents[2])
    assert all(lent.driver.closed for lent in lents)
    fresh = lending.take()
    assert fresh not in lents
    fresh.driver.execute("SELECT 1")


def test_one_that_is_not_as_it_should_be_is_not_used_again(open_lending: Open) -> None:
    lending = open_lending(1)
    lent = lending.take()
    lent.driver.execute("BEGIN")
    lending.give_back(lent)
    assert lent.driver.closed
    assert lending.take() is not lent


def test_one_that_lay_idle_for_long_is_tried_first(
    open_lending: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    lending = open_lending(1)
    lent = lending.take()
    lending.give_back(lent)
    lent.driver.close()
    monkeypatch.setattr(lending_module, "IDLE_SECONDS", 0.0)
    fresh = lending.take()
    assert fresh is not lent
    fresh.driver.execute("SELECT 1")


def test_after_the_end_nothing_is_kept(open_lending: Open) -> None:
    lending = open_lending(2)
    idle, in_use = lending.take(), lending.take()
    lending.give_back(idle)
    lending.close()
    assert idle.driver.closed
    lending.give_back(in_use)
    assert in_use.driver.closed


def test_all_in_use_for_long_is_an_error(open_lending: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "POOL_SECONDS", 0.05)
    lending = open_lending(1)
    only = lending.take()
    for _ in range(2):
        with pytest.raises(PoolTimeoutError):
            lending.take()
    lending.give_back(only)
    assert lending.take() is only
