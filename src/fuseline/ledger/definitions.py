"""Workflow versions as they are registered, with their compiled plans."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fuseline.clock import Clock
from fuseline.engine import Plan, Rules, compile_plan
from fuseline.errors import DefinitionNeededError, SchemaConflictError, UnknownWorkflowError
from fuseline.model.inputs import check_inputs_schema
from fuseline.model.schema import WorkflowSchema
from fuseline.model.views import WorkerView
from fuseline.storage.base import RuntimeStorage, Transaction

_PLAN_MAX_AGE_SECONDS = 5.0
"""A plan read from storage is trusted so long: another coordinator may have registered other policies meanwhile."""


@dataclass(frozen=True, slots=True)
class _Definition:
    schema: WorkflowSchema
    plan: Plan
    seen: float


class Definitions:
    """The registered versions of a storage; each is read again when what is known of it is some seconds old."""

    def __init__(self, storage: RuntimeStorage, clock: Clock, rules: Rules) -> None:
        self.storage = storage
        self.clock = clock
        self.rules = rules
        self._known: dict[tuple[str, str], _Definition] = {}
        self._last: dict[str, Plan] = {}

    def register(self, schemas: Iterable[WorkflowSchema], worker: WorkerView | None = None) -> None:
        """Make workflow versions known, and the worker that executes them, all or nothing.

        Raises `SchemaConflictError` when a version is known with another graph, or given twice and not alike, and
        `InvalidSchemaError` when a policy is misconfigured or `inputs_schema` is no JSON Schema.
        """
        by_key: dict[tuple[str, str], WorkflowSchema] = {}
        for schema in schemas:
            check_inputs_schema(schema)
            if by_key.setdefault(schema.key, schema) != schema:
                raise SchemaConflictError(
                    f"workflow {schema.workflow_id!r} version {schema.version!r} is given twice, and not alike"
                )
        plans = {key: self._compiled(schema) for key, schema in by_key.items()}
        # Nearly always nothing is changed, and then nobody has to wait for anybody.
        if not self._register(by_key, worker, to_change=False):
            self._register(by_key, worker, to_change=True)
        seen = self.clock.monotonic()
        self._known.update((key, _Definition(by_key[key], plan, seen)) for key, plan in plans.items())

    def _register(
        self, by_key: dict[tuple[str, str], WorkflowSchema], worker: WorkerView | None, *, to_change: bool
    ) -> bool:
        """False, with nothing done, when a version would have to be changed that was not loaded `to_change`."""
        with self.storage.transaction() as tx:
            known = tx.load_schemas(sorted(by_key), to_change=to_change)
            if not to_change and any(stored.schema != by_key[key] for key, stored in known.items()):
                return False
            for key, schema in sorted(by_key.items()):
                self._check_and_save(tx, known[key].schema if key in known else None, schema)
            if worker is not None:
                tx.save_worker(worker)
        return True

    def _compiled(self, schema: WorkflowSchema) -> Plan:
        known = self._known.get(schema.key)
        return known.plan if known and known.schema == schema else compile_plan(schema, self.rules)

    def _check_and_save(self, tx: Transaction, known: WorkflowSchema | None, schema: WorkflowSchema) -> None:
        if known is None:
            tx.save_schema(schema, self.clock.now())
        elif known != schema:
            if difference := known.first_difference(schema):
                raise SchemaConflictError(
                    f"workflow {schema.workflow_id!r} version {schema.version!r} is registered with another graph: "
                    f"{difference}; give the changed graph a new version"
                )
            tx.save_schema(schema, self.clock.now())

    def plan(self, workflow_id: str, version: str) -> Plan:
        """The compiled plan of a registered version. Raises `UnknownWorkflowError`."""
        return self._define((workflow_id, version)).plan

    def schema(self, workflow_id: str, version: str) -> WorkflowSchema:
        """A registered version, as it was registered last. Raises `UnknownWorkflowError`."""
        return self._define((workflow_id, version)).schema

    def with_digest(self, key: tuple[str, str], digest: str) -> WorkflowSchema:
        """A registered version that is the definition with this digest. Raises `DefinitionNeededError`.

        Storage is asked, however lately it was: a definition that somebody else has registered since would go on serving
        runs of one that was told to count from now on.
        """
        try:
            with self.storage.transaction() as tx:
                schema = self._read_definition(tx, key).schema
        except UnknownWorkflowError as error:
            raise DefinitionNeededError(str(error)) from error
        if schema.digest != digest:
            raise DefinitionNeededError(
                f"workflow {key[0]!r} version {key[1]!r} is registered with another definition"
            )
        return schema

    def _define(self, key: tuple[str, str]) -> _Definition:
        found = self._fresh(key)
        if found is None:
            with self.storage.transaction() as tx:
                found = self._read_definition(tx, key)
        return found

    def plan_within(self, tx: Transaction, key: tuple[str, str]) -> Plan:
        """The same as `plan`, read in a transaction that is open already."""
        plan = self._last[key[0]] = (self._fresh(key) or self._read_definition(tx, key)).plan
        return plan

    def guess(self, workflow_id: str) -> Plan | None:
        """The plan of this workflow that was asked for last: most likely that of its next run, too. None: no idea."""
        return self._last.get(workflow_id)

    def _fresh(self, key: tuple[str, str]) -> _Definition | None:
        found = self._known.get(key)
        if found is None or self.clock.monotonic() - found.seen >= _PLAN_MAX_AGE_SECONDS:
            return None
        return found

    def _read_definition(self, tx: Transaction, key: tuple[str, str]) -> _Definition:
        stored = tx.load_schemas([key]).get(key)
        if stored is None:
            raise UnknownWorkflowError(f"workflow {key[0]!r} version {key[1]!r} is not registered")
        known = self._known.get(key)
        now = self.clock.monotonic()
        if known is not None and known.schema == stored.schema:
            found = _Definition(known.schema, known.plan, now)
        else:
            found = _Definition(stored.schema, compile_plan(stored.schema, self.rules), now)
        self._known[key] = found
        return found
