"""Every statement, written with SQLAlchemy Core from the tables, and compiled once for each kind of database.

They are set-based: a list of keys is one parameter (a JSON text for SQLite, arrays for PostgreSQL), so that a batch of a
thousand runs takes as many statements as a batch of one. What is compiled is executed on the driver's connection: an
execution by way of SQLAlchemy costs six times the driver's own (ADR 0006).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BindParameter,
    ColumnElement,
    Dialect,
    Double,
    FromClause,
    Integer,
    Select,
    String,
    Table,
    and_,
    any_,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    literal_column,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ClauseElement

from fuseline.model.status import RunStatus, Status
from fuseline.storage.sql.tables import dead_letters, inputs, joins, runs, schemas, steps, workers

# As text in the statement: a plan that is made once for all parameters could not use a partial index otherwise.
_IS_QUEUED = steps.c.status == literal_column(f"'{Status.QUEUED.value}'")
_HAS_ENDED = runs.c.status != literal_column(f"'{RunStatus.RUNNING.value}'")


@dataclass(frozen=True, slots=True)
class Statement:
    """A compiled statement.

    `names`: its parameters in order, where the driver takes them by place; `fixed`: those that never differ; `columns`:
    what the rows that it writes consist of; `for_one`: the same for a list of one, where that is faster.
    """

    text: str
    names: tuple[str, ...]
    fixed: Mapping[str, Any]
    columns: tuple[str, ...] = ()
    for_one: Statement | None = None


class Statements(ABC):
    """All of them for one database."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        among = self._among
        self.load_runs = self._listed(self._load_runs)
        self.load_runs_locked = self._listed(lambda: self._load_runs().with_for_update())
        self.load_inputs = self._listed(lambda: select(inputs).where(among(inputs.c.instance_id, "ids")))
        self.load_steps = self._listed(lambda: self._of_keys(steps))
        self.load_steps_locked = self.compile(self._of_keys(steps, lock=True))
        self.load_joins = self._listed(lambda: self._of_keys(joins))
        self.load_all_steps = self._listed(lambda: select(steps).where(among(steps.c.instance_id, "ids")))
        self.load_all_joins = self._listed(lambda: select(joins).where(among(joins.c.instance_id, "ids")))
        self.load_letters = self.compile(select(dead_letters).where(among(dead_letters.c.instance_id, "ids")))
        self.read_letter = self.compile(
            select(dead_letters).where(dead_letters.c.letter_id == bindparam("letter_id", type_=String))
        )

        self.insert_runs = self._insert(runs)
        self.put_inputs = self._put(inputs)
        self.put_runs = self._put(runs, keep=("workflow_id", "version", "created_at"))
        self.put_steps = self._put(steps)
        self.put_joins = self._put(joins)
        self.put_letters = self._put(dead_letters)

        self.next_due = self.compile(_next_due())
        self.lock_due_runs = self.compile(_due_runs().with_for_update(skip_locked=True))
        self.lock_due_steps = self.compile(_runs_of_due_steps().with_for_update(of=runs, skip_locked=True))
        self.due_runs = self.compile(_due_runs(among(runs.c.instance_id, "ids")))
        self.due_steps = self.compile(_due_steps(among(steps.c.instance_id, "ids")))
        self.take_queued = self.compile(_queued_of().with_for_update(of=steps, skip_locked=True))
        one_run = steps.c.instance_id == bindparam("instance_id", type_=String)
        self.take_queued_of_run = self.compile(
            _queued_of(one_run).with_for_update(of=steps, skip_locked=True)
        )
        self.list_queued = self.compile(_queued_after())

        self.load_schemas = self.compile(self._schemas_of_keys().with_for_update(read=True))
        self.load_schemas_to_change = self.compile(self._schemas_of_keys().with_for_update())
        self.list_schemas = self.compile(select(schemas).order_by(schemas.c.workflow_id, schemas.c.version))
        self.put_schema = self._put(schemas, keep=("registered_at",))
        self.put_same_schema = self._put(schemas, keep=("registered_at",), only_same="body")
        self.put_workers = self._put(workers)
        self.touch_workers = self._update(workers, ("worker_id", "last_seen_at"), 1)
        self.delete_workers = self.compile(delete(workers).where(among(workers.c.worker_id, "ids")))
        self.list_workers = self.compile(select(workers).order_by(workers.c.worker_id))

        self.count_runs = self.compile(select(runs.c.status, func.count()).group_by(runs.c.status))
        self.now = self.compile(select(cast(func.extract("epoch", func.clock_timestamp()), Double)))

        self.lock_old_runs = self.compile(_old_runs().with_for_update(skip_locked=True))
        self.purge_steps = self.compile(self._purge(steps))
        self.purge_joins = self.compile(self._purge(joins))
        self.purge_letters = self.compile(self._purge(dead_letters))
        self.purge_inputs = self.compile(delete(inputs).where(among(inputs.c.instance_id, "ids")))
        self.purge_runs = self.compile(delete(runs).where(among(runs.c.instance_id, "ids")))

    @functools.cache  # noqa: B019 - there is one instance for each kind of database
    def list_runs(self, workflow: bool, state: bool, before: bool) -> Statement:
        """Headers, newest first, with as many conditions as are asked for."""
        query = select(runs).order_by(runs.c.instance_id.desc()).limit(bindparam("limit", type_=Integer))
        if workflow:
            query = query.where(runs.c.workflow_id == bindparam("workflow_id"))
        if state:
            query = query.where(runs.c.status == bindparam("state"))
        if before:
            query = query.where(runs.c.instance_id < bindparam("before"))
        return self.compile(query)

    @functools.cache  # noqa: B019 - there is one instance for each kind of database
    def list_letters(self, *conditions: str) -> Statement:
        """Dead letters, newest first, with as many conditions as are asked for."""
        newest = dead_letters.c.letter_id.desc()
        query = select(dead_letters).order_by(newest).limit(bindparam("limit", type_=Integer))
        for name in conditions:
            if name == "before":
                query = query.where(dead_letters.c.letter_id < bindparam("before", type_=String))
            else:
                query = query.where(dead_letters.c[name] == bindparam(name, type_=String))
        return self.compile(query)

    # ---- what differs

    @abstractmethod
    def _among(self, of: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """That `of` is one of a list of texts."""

    @abstractmethod
    def _keys(self) -> FromClause:
        """A list of pairs of texts, as a table with columns `first` and `second`."""

    @abstractmethod
    def _insert(self, table: Table) -> Statement:
        """Insert rows; fails when one exists."""

    @abstractmethod
    def _update(self, table: Table, columns: Sequence[str], keys: int) -> Statement:
        """Update rows, found by the first `keys` of the columns; ignores those that do not exist."""

    @abstractmethod
    def _put(self, table: Table, keep: Sequence[str] = (), only_same: str | None = None) -> Statement:
        """Insert rows or replace them, but for the columns to `keep`.

        With `only_same`, a row that exists with another value there stays, and is not counted as written.
        """

    # ---- what does not

    def compile(self, clause: ClauseElement, columns: Sequence[str] = ()) -> Statement:
        """A statement; `columns`: of the rows that it writes."""
        compiled: Any = clause.compile(dialect=self._dialect)
        fixed = {name: value for name, value in compiled.params.items() if value is not None}
        # Plain texts: SQLAlchemy's own kind of them is slow to write as JSON.
        plain = tuple(str(name) for name in columns)
        return Statement(str(compiled), tuple(compiled.positiontup or ()), fixed, plain)

    def _listed(self, make: Callable[[], ClauseElement]) -> Statement:
        """A statement with a list."""
        return self.compile(make())

    def _load_runs(self) -> Select[Any]:
        return select(runs).where(self._among(runs.c.instance_id, "ids")).order_by(runs.c.instance_id)

    @abstractmethod
    def _of_keys(self, table: Table, *, lock: bool = False) -> Select[Any]:
        """The rows of a list of keys. `lock`: where there is something to lock."""

    def _schemas_of_keys(self) -> Select[Any]:
        keys = self._keys()
        among = select(keys.c.first, keys.c.second)
        return (
            select(schemas)
            .where(tuple_(schemas.c.workflow_id, schemas.c.version).in_(among))
            .order_by(schemas.c.workflow_id, schemas.c.version)
        )

    def _purge(self, table: Table) -> ClauseElement:
        some = select(table.c.instance_id, table.c.name).where(self._among(table.c.instance_id, "ids"))
        keys = tuple_(table.c.instance_id, table.c.name)
        return delete(table).where(keys.in_(some.limit(bindparam("limit", type_=Integer))))


def _now() -> BindParameter[float]:
    return bindparam("now", type_=Double)


def _limit() -> BindParameter[int]:
    return bindparam("limit", type_=Integer)


def _next_due() -> Select[Any]:
    each = union_all(
        select(func.min(runs.c.due_at).label("due_at")).where(runs.c.due_at.is_not(None)),
        select(func.min(steps.c.due_at)).where(steps.c.due_at.is_not(None)),
    ).subquery()
    return select(func.min(each.c.due_at))


def _due_runs(*among: ColumnElement[bool]) -> Select[Any]:
    query = select(runs.c.instance_id, runs.c.due_at).where(runs.c.due_at <= _now(), *among)
    return query.order_by(runs.c.due_at).limit(_limit())


def _runs_of_due_steps() -> Select[Any]:
    query = select(runs.c.instance_id).join_from(steps, runs, runs.c.instance_id == steps.c.instance_id)
    return query.where(steps.c.due_at <= _now()).order_by(steps.c.due_at).limit(_limit())


def _due_steps(among: ColumnElement[bool]) -> Select[Any]:
    query = select(steps.c.instance_id, steps.c.name, steps.c.attempt, steps.c.holder, steps.c.due_at)
    return query.where(steps.c.due_at <= _now(), among).order_by(steps.c.due_at).limit(_limit())


def _queued_of(*run: ColumnElement[bool]) -> Select[Any]:
    # Looked up for each queued step: a join would let the planner begin with all runs of the workflow.
    workflow_id = (
        select(runs.c.workflow_id).where(runs.c.instance_id == steps.c.instance_id).scalar_subquery()
    )
    query = select(steps).where(_IS_QUEUED, workflow_id == bindparam("workflow_id", type_=String), *run)
    return query.order_by(steps.c.instance_id, steps.c.queued_at, steps.c.name).limit(_limit())


def _queued_after() -> Select[Any]:
    key = tuple_(steps.c.instance_id, steps.c.name)
    after = tuple_(bindparam("after_id", type_=String), bindparam("after_name", type_=String))
    query = select(steps).where(_IS_QUEUED, key > after)
    return query.order_by(steps.c.instance_id, steps.c.name).limit(_limit())


def _old_runs() -> Select[Any]:
    before = bindparam("before", type_=Double)
    query = select(runs.c.instance_id).where(runs.c.finished_at < before, _HAS_ENDED)
    return query.order_by(runs.c.finished_at).limit(_limit())


class SqliteStatements(Statements):
    """A list is a JSON text. Many rows are written by executing one statement for each, within the driver."""

    def __init__(self) -> None:
        self._is_for_one = False
        super().__init__(sqlite.dialect())

    def _listed(self, make: Callable[[], ClauseElement]) -> Statement:
        # Taking a list of one apart costs as much as finding the row.
        many = super()._listed(make)
        self._is_for_one = True
        one = super()._listed(make)
        self._is_for_one = False
        return replace(many, for_one=one)

    def _of_keys(self, table: Table, *, lock: bool = False) -> Select[Any]:
        if self._is_for_one:
            mine = and_(table.c.instance_id == bindparam("first"), table.c.name == bindparam("second"))
            return select(table).where(mine)
        keys = self._keys()
        mine = and_(table.c.instance_id == keys.c.first, table.c.name == keys.c.second)
        return select(table).select_from(keys.join(table, mine))

    def _among(self, of: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        if self._is_for_one:
            return of == bindparam(name, type_=String)
        return of.in_(select(func.json_each(bindparam(name, type_=String)).table_valued("value").c.value))

    def _keys(self) -> FromClause:
        each = func.json_each(bindparam("keys", type_=String)).table_valued("value")
        parts = [func.json_extract(each.c.value, literal_column(f"'$[{place}]'")) for place in (0, 1)]
        return select(parts[0].label("first"), parts[1].label("second")).subquery()

    def _insert(self, table: Table) -> Statement:
        names = table.columns.keys()
        return self.compile(insert(table).values({name: bindparam(name) for name in names}), names)

    def _update(self, table: Table, columns: Sequence[str], keys: int) -> Statement:
        where = [table.c[name] == bindparam(f"k_{name}") for name in columns[:keys]]
        values: dict[str, Any] = {name: bindparam(f"v_{name}") for name in columns[keys:]}
        made = self.compile(update(table).where(*where).values(values), columns)
        return replace(made, names=tuple(name[2:] for name in made.names))

    def _put(self, table: Table, keep: Sequence[str] = (), only_same: str | None = None) -> Statement:
        put = sqlite.insert(table).values({c: bindparam(c.name) for c in table.columns})
        changed = _changed(table, keep)
        where = None if only_same is None else table.c[only_same] == put.excluded[only_same]
        return self.compile(
            put.on_conflict_do_update(
                index_elements=list(table.primary_key),
                set_={name: put.excluded[name] for name in changed},
                where=where,
            ),
            table.columns.keys(),
        )


class PostgresStatements(Statements):
    """A list is an array. Many rows are written by one statement that reads them from an array for each column.

    How a statement is executed must not depend on how large a table was when somebody last counted: a plan is made once, and
    an empty table that was counted may have a million rows before it is again.
    """

    def __init__(self) -> None:
        super().__init__(postgresql.psycopg.dialect())  # type: ignore[no-untyped-call]

    def _among(self, of: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        return of == any_(bindparam(name, type_=ARRAY(String)))

    def _of_keys(self, table: Table, *, lock: bool = False) -> Select[Any]:
        # A join leaves it to the planner how, who reads the whole table for each key where it was nearly empty once. The
        # limit keeps him from taking this for a join.
        keys = self._keys()
        mine = and_(table.c.instance_id == keys.c.first, table.c.name == keys.c.second)
        one = select(table).where(mine).limit(literal_column("1"))
        row = (one.with_for_update() if lock else one).lateral("row")
        return select(row).select_from(keys.join(row, true()))

    def _keys(self) -> FromClause:
        lists = (bindparam("firsts", type_=ARRAY(String)), bindparam("seconds", type_=ARRAY(String)))
        return func.unnest(*lists).table_valued("first", "second", name="keys").render_derived()

    def rows_of(self, table: Table, columns: Sequence[str]) -> Any:
        """A list of rows, with these columns of the table's, as a table itself: an array for each column."""
        lists = [bindparam(name, type_=ARRAY(table.c[name].type)) for name in columns]
        typed = [column(name, table.c[name].type) for name in columns]
        return func.unnest(*lists).table_valued(*typed, name="new").render_derived()

    def rows_in_text(self, table: Table, columns: Sequence[str]) -> Any:
        """The same as one JSON text, `rows`: of few rows it is sooner written down."""
        typed = [column(name, table.c[name].type) for name in columns]
        text = cast(bindparam("rows", type_=String), JSON)
        return func.json_to_recordset(text).table_valued(*typed, name="new").render_derived(with_types=True)

    def _insert(self, table: Table) -> Statement:
        names = table.columns.keys()
        return self.compile(insert(table).from_select(names, select(self.rows_of(table, names))), names)

    def _update(self, table: Table, columns: Sequence[str], keys: int) -> Statement:
        new = self.rows_of(table, columns)
        where = [table.c[name] == new.c[name] for name in columns[:keys]]
        values = {name: new.c[name] for name in columns[keys:]}
        return self.compile(update(table).where(*where).values(values), columns)

    def _put(self, table: Table, keep: Sequence[str] = (), only_same: str | None = None) -> Statement:
        names = table.columns.keys()
        put = postgresql.insert(table).from_select(names, select(self.rows_of(table, names)))
        return self.compile(self.replacing(table, put, keep, only_same), names)

    def replacing(
        self, table: Table, put: postgresql.Insert, keep: Sequence[str] = (), only_same: str | None = None
    ) -> postgresql.Insert:
        """An insert that replaces what is there, as `_put` has it."""
        return put.on_conflict_do_update(
            index_elements=list(table.primary_key),
            set_={name: put.excluded[name] for name in _changed(table, keep)},
            where=None if only_same is None else table.c[only_same] == put.excluded[only_same],
        )


def _changed(table: Table, keep: Sequence[str]) -> list[str]:
    return [c.name for c in table.columns if not c.primary_key and c.name not in keep]
