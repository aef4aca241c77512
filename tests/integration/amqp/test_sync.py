"""`BackgroundLink` in the hands of ordinary programs: threads, forks, mistakes and ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fuseline.amqp.link import Link
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import Topology
from fuseline.errors import BrokerUnavailableError, CallerError
from tests.integration.amqp.conftest import WORKFLOW
from tests.integration.amqp.harness import SECONDS, drain, props


@pytest.fixture
def kind() -> str:
    """It has one loop only."""
    return "select"


def publish(link: BackgroundLink, topology: Topology, body: bytes) -> None:
    key = topology.steps_key(*WORKFLOW)
    link.publish(topology.steps_exchange, key, body, props(), deadline_seconds=SECONDS)


def test_many_threads_share_one(link: BackgroundLink, topology: Topology, steps: str, amqp_url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: publish(link, topology, str(number).encode()), range(200)))
    assert {int(body) for body in drain(amqp_url, steps)} == set(range(200))
    assert [thread.name for thread in threading.enumerate()].count("fuseline test") == 1


def test_a_forked_child_connects_by_itself_and_leaves_the_parent_alone(
    link: BackgroundLink, topology: Topology, steps: str, amqp_url: str
) -> None:
    publish(link, topology, b"parent before")
    child = os.fork()
    if child == 0:  # no pytest in here
        signal.alarm(20)
        try:
            publish(link, topology, b"child")
            link.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    publish(link, topology, b"parent after")
    assert drain(amqp_url, steps) == [b"parent before", b"child", b"parent after"]


def test_after_close_calls_are_refused(amqp_url: str) -> None:
    link = BackgroundLink(amqp_url, name="test")
    link.connect(SECONDS)
    link.close()
    link.close()
    with pytest.raises(BrokerUnavailableError, match="closed"):
        link.count("x", deadline_seconds=SECONDS)
    assert "fuseline test" not in [thread.name for thread in threading.enumerate()]


def test_closing_ends_the_calls_that_wait() -> None:
    link = BackgroundLink("amqp://guest:guest@127.0.0.1:1/", name="test")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(link.publish, "x", "y", b"z", props(), deadline_seconds=60)
        while link.link.pending_publishes == 0:
            time.sleep(0.01)
        link.close(0)
        with pytest.raises(BrokerUnavailableError, match="closed"):
            waiting.result(SECONDS)


def test_no_thread_before_the_first_call() -> None:
    BackgroundLink("amqp://guest:guest@127.0.0.1:1/", name="idle")
    assert "fuseline idle" not in [thread.name for thread in threading.enumerate()]


def test_an_address_that_is_none_is_refused_without_its_password() -> None:
    for url in ("http://a:secret@b/", "amqp://", "amqp://u:secret@h:notaport/", ""):
        with pytest.raises(CallerError) as caught:
            BackgroundLink(url, name="x")
        assert "secret" not in str(caught.value)


def test_a_link_belongs_to_its_thread(link: BackgroundLink) -> None:
    link.connect(SECONDS)
    with pytest.raises(RuntimeError, match="thread"):
        link.link.publish("x", "y", b"z", props(), on_done=print, deadline_seconds=1)


def test_waiting_on_the_links_own_thread_is_an_error_and_not_a_deadlock(link: BackgroundLink) -> None:
    caught: list[BaseException] = []
    done = threading.Event()

    def wrong() -> None:
        try:
            link.count("x", deadline_seconds=1)
        except RuntimeError as error:
            caught.append(error)
        done.set()

    link.link.call_soon_threadsafe(wrong)
    assert done.wait(SECONDS)
    assert "thread" in str(caught[0])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_callback_that_raises_ends_the_thread_loudly_and_the_next_call_begins_anew(
    link: BackgroundLink, topology: Topology, steps: str
) -> None:
    """P7: pika would take it for a broken connection and go on for ever."""
    raised = threading.Event()

    def mistake(_one: Link) -> None:
        raised.set()
        raise ZeroDivisionError

    running = link.link
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(link.rpc, topology.commands_exchange, "", b"", props(), deadline_seconds=60)
        while running.pending_publishes:
            time.sleep(0.01)
        running.call_soon_threadsafe(lambda: mistake(running))
        assert raised.wait(SECONDS)
        with pytest.raises(BrokerUnavailableError):
            waiting.result(SECONDS)
    publish(link, topology, b"x")
    assert link.link is not running
