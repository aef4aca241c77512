"""A lone report in one statement, which PostgreSQL commits with its answer: one round trip in place of two.

It does what a transaction of ours does, in its order: it locks the run (`FOR UPDATE`), then looks at the step, then writes,
all or nothing. Each part is executed only if the one before it has found its row (the condition is evaluated
before a table is read), so nothing is written without the lock.

Under READ COMMITTED a row that another transaction changes while this one waits for its lock is looked at once more, as it
is then, with all conditions: on the header and on the step alike. So what is compared is what is there under the lock,
not what was there when the statement began. A step that is new is inserted; was there one after all, the statement fails
as a whole, and so does the report until it is decided on with that row read.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import (
    CTE,
    Column,
    ColumnElement,
    Table,
    and_,
    bindparam,
    exists,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql

from fuseline.engine.state import StepRow
from fuseline.model.status import RunStatus
from fuseline.storage.recollection import Beginning, Swap
from fuseline.storage.sql import rows
from fuseline.storage.sql.session import Session
from fuseline.storage.sql.statements import PostgresStatements, Statement, Statements
from fuseline.storage.sql.tables import inputs, runs, steps
from fuseline.storage.sql.transaction import SqlTransaction
from fuseline.storage.transaction import Changes, Loaded, Wanted

# What is remembered (`recollection`) has nothing in the columns that are not named here.
_RUN_SEEN: Final = ("instance_id", "created_at", "open_steps", "due_at", "replays")
_STEP_SEEN: Final = (
    "name",
    "status",
    "attempt",
    "failures",
    "losses",
    "holder",
    "queued_at",
    "started_at",
    "due_at",
)
_ONE: Final[ColumnElement[Any]] = literal_column("1")
_KEYS: Final = ("instance_id", "name")
_RUN_SET: Final = tuple(name for name in rows.RUN_CHANGES if name not in _KEYS)
_STEP_SET: Final = tuple(column.name for column in steps.columns if column.name not in _KEYS)


class NotingTransaction(SqlTransaction):
    """One that reads, and keeps what it has `read` and `saved` for who remembers it."""

    tells_conflicts = True

    def __init__(self, session: Session, statements: Statements) -> None:
        super().__init__(session, statements)
        self.read = Loaded()
        self.saved: list[Changes] = []

    def load(self, wanted: Wanted) -> Loaded:
        found = super().load(wanted)
        self.read.runs.update(found.runs)
        self.read.inputs.update(found.inputs)
        return found

    def save(self, changes: Changes) -> None:
        super().save(changes)
        self.saved.append(changes)


class SwappingStatements(PostgresStatements):
    """And two that swap, with the header as it is, and with one that changes, too; and one that begins a run."""

    def __init__(self) -> None:
        super().__init__()
        self.swap_steps, self.swap_all = (_swap(self, header) for header in (False, True))
        self.begin_run = _begin(self)


def _begin(statements: PostgresStatements) -> Statement:
    new = postgresql.insert(runs).values({column: _given("run", column) for column in runs.columns})
    run = new.on_conflict_do_nothing().returning(_ONE).cte("run")
    body = select(*(_given("input", column) for column in inputs.columns)).where(_has(run))
    names = steps.columns.keys()
    begun = select(statements.rows_in_text(steps, names)).where(_has(run))
    # What is left of a run whose header somebody took away by hand is replaced, as in a transaction.
    then = [
        statements.replacing(inputs, postgresql.insert(inputs).from_select(inputs.columns.keys(), body)).cte(
            "inputs"
        ),
        statements.replacing(steps, postgresql.insert(steps).from_select(names, begun)).cte("steps"),
    ]
    return statements.compile(select(_ONE).select_from(run).add_cte(*then), names)


def _swap(statements: PostgresStatements, header: bool) -> Statement:
    run = select(_ONE).where(_run_as_seen()).with_for_update().cte("run")
    done = (
        update(steps)
        .where(_has(run), _of_run(steps), _as_seen(steps, "step", _STEP_SEEN))
        .values({name: _given("set", steps.c[name]) for name in _STEP_SET})
        .returning(_ONE)
        .cte("done")
    )
    names = steps.columns.keys()
    new = select(statements.rows_in_text(steps, names)).where(_has(done))
    then: list[CTE] = [insert(steps).from_select(names, new).cte("added")]
    if header:
        values = {name: _given("header", runs.c[name]) for name in _RUN_SET}
        then.append(update(runs).where(_has(done), _of_run(runs)).values(values).cte("changed"))
    return statements.compile(select(_ONE).select_from(done).add_cte(run, *then), names)


def _of_run(table: Table) -> ColumnElement[bool]:
    return table.c.instance_id == _given("run", runs.c.instance_id)


def _run_as_seen() -> ColumnElement[bool]:
    goes_on = runs.c.status == literal_column(f"'{RunStatus.RUNNING.value}'")
    return and_(
        _as_seen(runs, "run", _RUN_SEEN), goes_on, runs.c.error.is_(None), runs.c.failed_step.is_(None)
    )


def _as_seen(table: Table, prefix: str, names: Sequence[str]) -> ColumnElement[bool]:
    return and_(
        *(
            table.c[name].is_not_distinct_from(_given(prefix, table.c[name]))
            if table.c[name].nullable
            else table.c[name] == _given(prefix, table.c[name])
            for name in names
        )
    )


def _given(prefix: str, column: Column[Any]) -> ColumnElement[Any]:
    return bindparam(f"{prefix}_{column.name}", type_=column.type)


def _has(found: CTE) -> ColumnElement[bool]:
    return exists(select(_ONE).select_from(found))


def values_of(swap: Swap, new: str) -> dict[str, Any]:
    """A statement's parameters; `new`: its `rows`."""
    run, step = swap.seen_run, swap.seen_step
    given = (*_RUN_VALUES(run), *_STEP_VALUES(step), *rows.step_values(run.instance_id, swap.step)[2:], new)
    if swap.run is None:
        return dict(zip(_NAMES, given, strict=True))
    return dict(zip(_NAMES_ALL, (*given, *rows.run_changes(swap.run)[1:]), strict=True))


def values_to_begin(one: Beginning, new: str) -> dict[str, Any]:
    """The parameters of `begin_run`; `new`: its `rows`."""
    i = one.run.instance_id
    return dict(
        zip(_NAMES_TO_BEGIN, (*rows.run_values(one.run), i, rows.dumps(one.inputs), new), strict=True)
    )


def new_rows(instance_id: str, new: Sequence[StepRow]) -> list[tuple[Any, ...]]:
    """The steps to insert."""
    return [rows.step_values(instance_id, step) for step in new]


_RUN_VALUES: Final = attrgetter(*_RUN_SEEN)
_STEP_VALUES: Final = attrgetter(*_STEP_SEEN)
_NAMES: Final = (
    *(f"run_{name}" for name in _RUN_SEEN),
    *(f"step_{name}" for name in _STEP_SEEN),
    *(f"set_{name}" for name in _STEP_SET),
    "rows",
)
_NAMES_TO_BEGIN: Final = (
    *(f"run_{column.name}" for column in runs.columns),
    *(f"input_{column.name}" for column in inputs.columns),
    "rows",
)
_NAMES_ALL: Final = (*_NAMES, *(f"header_{name}" for name in _RUN_SET))
