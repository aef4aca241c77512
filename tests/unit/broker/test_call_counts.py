"""What a step costs an embedded broker: statements and commits, counted, so that they cannot grow unseen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fuseline.amqp.codec import encode
from fuseline.broker import MemoryBroker
from fuseline.broker.lane import Told
from fuseline.model.messages import StepAssignment
from fuseline.storage.sql import SqliteRuntimeStorage
from fuseline.testing.flows import graph, report_on

LENGTH = 10
CHAIN = graph("chain", {f"s{n}": [f"s{n + 1}"] for n in range(LENGTH - 1)} | {f"s{LENGTH - 1}": []})


@pytest.fixture
def storage(tmp_path: Path) -> SqliteRuntimeStorage:
    return SqliteRuntimeStorage(tmp_path / "runs.db")


@pytest.fixture
def broker(storage: SqliteRuntimeStorage) -> Iterator[MemoryBroker]:
    with MemoryBroker(storage, close_storage=True) as broker:
        yield broker


def told(assignment: StepAssignment) -> Told:
    report = report_on(assignment, result={"some": "result"})
    return Told(report, encode(report))


@pytest.mark.parametrize("runs", [1, 64])
def test_a_round_of_steps_is_one_commit_and_one_statement(
    storage: SqliteRuntimeStorage, broker: MemoryBroker, runs: int
) -> None:
    """Reports are recorded, and the steps after them claimed; at the end of a run its header is written, too."""
    worker = broker.register_worker([CHAIN])
    broker.dispatch_many(CHAIN, [{"some": "input"}] * runs)
    held = broker.exchange(worker, (), runs).assignments
    for left in reversed(range(LENGTH)):
        assert len(held) == runs
        statements, commits = storage.statements, storage.commits
        held = broker.exchange(worker, [told(one) for one in held], runs).assignments
        assert storage.commits - commits == 1
        assert storage.statements - statements == (1 if left else 2)
    assert not held


def test_many_runs_begin_with_one_commit(storage: SqliteRuntimeStorage, broker: MemoryBroker) -> None:
    broker.dispatch_workflow(CHAIN)
    statements, commits = storage.statements, storage.commits
    broker.dispatch_many(CHAIN, [{"some": "input"}] * 200)
    assert storage.commits - commits == 1
    assert storage.statements - statements <= 6


def test_by_the_five_methods_a_step_is_two_commits(
    storage: SqliteRuntimeStorage, broker: MemoryBroker
) -> None:
    worker = broker.register_worker([CHAIN])
    broker.dispatch_workflow(CHAIN)
    statements, commits = storage.statements, storage.commits
    for _ in range(LENGTH):
        assignment = broker.get_step(worker)
        assert assignment is not None
        broker.report_step(worker, report_on(assignment))
    assert storage.commits - commits == 2 * LENGTH
    assert storage.statements - statements <= 2 * LENGTH + 1
