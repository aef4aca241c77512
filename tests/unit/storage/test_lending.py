"""Connections between two uses: taken again without the pool, and never kept from who waits for one."""

from __future__ import annotations

import gc
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


def use_another(lending: Lending, *than: Lent) -> None:
    """The next one is none of those, and can be used."""
    fresh = lending.take()
    assert fresh not in than
    fresh.driver.execute("SELECT 1")
    lending.give_back(fresh)


def test_who_comes_next_gets_the_connection_that_was_used_last(open_lending: Open) -> None:
    lending = open_lending(3)
    first, second = lending.take(), lending.take()
    assert first.driver is not second.driver
    lending.give_back(first)
    lending.give_back(second)
    assert lending.take() is second
    assert lending.take() is first
    lending.give_back(first)
    lending.give_back(second)


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
    lending.give_back(got[0])


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
    use_another(lending, *lents)


def test_one_that_is_not_as_it_should_be_is_not_used_again(open_lending: Open) -> None:
    lending = open_lending(1)
    lent = lending.take()
    lent.driver.execute("BEGIN")
    lending.give_back(lent)
    assert lent.driver.closed
    use_another(lending, lent)


def test_what_nobody_gave_back_is_not_used_again_as_it_was(open_lending: Open) -> None:
    """P3: whoever was interrupted has left a transaction on it, which the next one would commit."""
    lending = open_lending(1)
    lent = lending.take()
    driver = lent.driver
    driver.execute("BEGIN")
    del lent
    gc.collect()
    assert driver.closed
    fresh = lending.take()
    assert fresh.driver is not driver
    fresh.driver.execute("SELECT 1")
    lending.give_back(fresh)


def test_after_one_was_lost_there_are_no_more_than_before(open_lending: Open) -> None:
    """P6."""
    lending = open_lending(2)
    lost, in_use = lending.take(), lending.take()
    lost.driver.close()
    lending.give_back(lost)
    both = [lending.take(), lending.take()]
    lending.give_back(in_use)
    for one in both:
        lending.give_back(one)
    assert len(lending._idle) == 2
    assert in_use.driver.closed


def test_what_the_search_for_garbage_gives_back_waits_for_nobody(open_lending: Open) -> None:
    """P7: it may begin anywhere, while this same thread has the lock, too."""
    lending = open_lending(1)
    lent = lending.take()
    with lending._lock:
        lending.give_back(lent)
    assert lending.take() is lent
    lending.give_back(lent)


def test_one_that_lay_idle_for_long_is_tried_first(
    open_lending: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    lending = open_lending(1)
    lent = lending.take()
    lending.give_back(lent)
    lent.driver.close()
    monkeypatch.setattr(lending_module, "IDLE_SECONDS", 0.0)
    use_another(lending, lent)


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
    lending.give_back(only)
