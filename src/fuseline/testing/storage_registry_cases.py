"""Cases for every storage: what is registered, purging, closing."""

from __future__ import annotations

import pytest

from fuseline.clock import SystemClock
from fuseline.engine.state import JoinRow
from fuseline.errors import StorageUnavailableError, UnsupportedError
from fuseline.model.status import RunStatus
from fuseline.model.views import WorkerView
from fuseline.storage.base import RuntimeStorage
from fuseline.storage.transaction import Changes, Wanted
from fuseline.testing.flows import graph
from fuseline.testing.storage_cases import StorageCases, keep, run_row, step_row


class RegistryCases(StorageCases):
    """Workflow versions and workers."""

    def test_a_version_keeps_the_time_of_its_registration(self, storage: RuntimeStorage) -> None:
        schema = graph("w", {"a": ["b"]})
        changed = schema.model_copy(update={"description": "now with words \0"})
        for now, one in ((1.0, schema), (2.0, changed), (3.0, graph("w", {"a": []}, version="2"))):
            with storage.transaction() as tx:
                tx.load_schemas([one.key])
                tx.save_schema(one, now)
        with storage.transaction() as tx:
            found = tx.load_schemas([("w", "1"), ("w", "3"), ("x", "1")])
        assert {key: (one.schema, one.registered_at) for key, one in found.items()} == {
            ("w", "1"): (changed, 1.0)
        }
        assert [one.schema.key for one in storage.list_schemas()] == [("w", "1"), ("w", "2")]

    def test_a_version_is_saved_without_being_looked_for(self, storage: RuntimeStorage) -> None:
        for schema in (graph("w", {"a": []}), graph("w", {"a": ["b"]})):
            with storage.transaction() as tx:
                tx.save_schema(schema, 1.0)
                assert tx.load_schemas([schema.key])[schema.key].schema == schema
        assert [one.schema for one in storage.list_schemas()] == [schema]

    def test_workers_are_kept_and_forgotten(self, storage: RuntimeStorage) -> None:
        workers = [
            WorkerView(worker_id=i, workflows=[("w", "1")], registered_at=1.0, last_seen_at=1.0, host="h")
            for i in "abc"
        ]
        with storage.transaction() as tx:
            for worker in workers:
                tx.save_worker(worker)
        with storage.transaction() as tx:
            tx.save_worker(workers[0].model_copy(update={"pid": 7}))
            tx.touch_workers({"b": 9.0, "nobody": 9.0})
            tx.delete_workers(["c", "nobody"])
            tx.touch_workers({})
            tx.delete_workers([])
        found = {worker.worker_id: worker for worker in storage.list_workers()}
        assert found == {
            "a": workers[0].model_copy(update={"pid": 7}),
            "b": workers[1].model_copy(update={"last_seen_at": 9.0}),
        }


class PurgeCases(StorageCases):
    """Deleting old runs."""

    def test_what_ended_before_is_deleted_with_all_its_rows(self, storage: RuntimeStorage) -> None:
        runs = {
            "old": run_row("old", RunStatus.SUCCEEDED, finished_at=10.0),
            "older": run_row("older", RunStatus.FAILED, finished_at=9.0),
            "new": run_row("new", RunStatus.CANCELLED, finished_at=11.0),
            "open": run_row("open", created_at=0.0),
        }
        keep(storage, *runs.values(), **{i: [step_row("s"), step_row("t")] for i in runs})
        with storage.transaction() as tx:
            tx.save(Changes(joins=[(i, JoinRow("j", 1, is_new=True)) for i in runs]))
        assert storage.purge_runs(11.0, 1) == 1
        assert storage.read_run("older") is None
        assert storage.purge_runs(11.0, 10) == 1
        assert storage.purge_runs(11.0, 10) == 0
        gone = storage.read_rows(Wanted(set(runs), whole=set(runs), inputs=set(runs)))
        assert set(gone.runs) == {"new", "open"}
        assert {i for i, _ in gone.steps} == {"new", "open"}
        assert {i for i, _ in gone.joins} == {"new", "open"}
        assert set(gone.inputs) == {"new", "open"}
        assert len(storage.list_queued()) == 4


class LifeCases(StorageCases):
    """Closing, and the clock."""

    def test_calls_after_the_close_say_so(self, storage: RuntimeStorage) -> None:
        storage.close()
        storage.close()
        with pytest.raises(StorageUnavailableError, match="closed"):
            storage.next_due()
        with pytest.raises(StorageUnavailableError, match="closed"), storage.transaction():
            pytest.fail("a transaction began")

    def test_a_clock_of_its_own_is_near_ours_or_not_there(self, storage: RuntimeStorage) -> None:
        try:
            assert abs(storage.now() - SystemClock().now()) < 60
        except UnsupportedError as error:
            assert type(storage).__name__ in str(error)  # noqa: PT017 - either is right
