"""P7: an address that is none says what is wrong with it, and never shows a password."""

from __future__ import annotations

import pytest

from fuseline.amqp.connection import addresses, first_of, parameters_of
from fuseline.amqp.limits import LinkLimits
from fuseline.clock import ManualClock
from fuseline.errors import CallerError


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("amqp://guest@host/", "its user has no password"),
        ("http://host/", "must look like amqp://"),
        ("amqp://guest:secret@host:port/", "port"),
    ],
)
def test_an_address_that_is_none_says_why(url: str, told: str) -> None:
    with pytest.raises(CallerError, match=told) as raised:
        parameters_of(url, "test", LinkLimits())
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("urls", "found"),
    [
        ("amqp://a/", ["amqp://a/"]),
        (" amqp://a/ , amqps://u:p@b:1/v?heartbeat=5,amqp://c/, ", ["amqp://a/", "amqps://u:p@b:1/v?heartbeat=5", "amqp://c/"]),
        (["amqp://a/,amqp://b/", "amqp://c/"], ["amqp://a/", "amqp://b/", "amqp://c/"]),
        ("amqp://u:p,w@a/,amqp://u:p,w@b/", ["amqp://u:p,w@a/", "amqp://u:p,w@b/"]),
        (",,amqp://a/,,", ["amqp://a/"]),
    ],
)  # fmt: skip
def test_the_addresses_of_a_cluster_have_commas_between_them(urls: str | list[str], found: list[str]) -> None:
    assert addresses(urls) == found


@pytest.mark.parametrize("urls", ["", " , ", []])
def test_no_address_at_all_is_refused(urls: str | list[str]) -> None:
    with pytest.raises(CallerError, match="no AMQP address"):
        addresses(urls)


def test_clients_begin_with_any_address_of_a_cluster() -> None:
    clock = ManualClock()
    assert {first_of("abc", clock) for _ in range(100)} == {0, 1, 2}
    before = ManualClock().random()
    alone = ManualClock()
    assert first_of("a", alone) == 0
    assert alone.random() == before, "nothing is drawn where there is no choice"
