"""The broker over HTTP: a client of Fuseline's HTTP service, for programs that reach nothing but that."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from fuseline.amqp.codec import MAX_WRAPPED_NESTING, decode, encode
from fuseline.broker.base import Broker
from fuseline.broker.problems import raise_problem
from fuseline.broker.ready import Fence, fence
from fuseline.broker.reported import attempt_of
from fuseline.clock import Clock, SystemClock
from fuseline.errors import (
    BrokerUnavailableError,
    CallerError,
    DeadlineExceededError,
    InvalidInputsError,
    InvalidMessageError,
)
from fuseline.model.messages import StepAssignment, StepReport
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import DeadLetterReason, DeadLetterState, RunStatus
from fuseline.model.views import (
    DeadLetterDetail,
    DeadLetterView,
    ReplayView,
    RunSummary,
    RunView,
    WorkerView,
    WorkflowView,
)

Model = TypeVar("Model", bound=BaseModel)

LONG_POLL_SECONDS = 20.0
RECONNECT_SECONDS = 5.0
"""How long a service that restarts is tried again, within the call's deadline."""
_PAUSE_SECONDS = (0.05, 0.5)

_RUNS = TypeAdapter(list[RunSummary])
_LETTERS = TypeAdapter(list[DeadLetterView])
_WORKERS = TypeAdapter(list[WorkerView])
_WORKFLOWS = TypeAdapter(list[WorkflowView])


class HttpBroker(Broker):
    """`url` is the service's address; a path in it goes before every route, a user and password become basic auth.

    `call_seconds` is the deadline of each call. `headers` go with each request, such as the token that a proxy wants;
    `transport` is another way there than TCP (`httpx.HTTPTransport(uds=...)`, or one with certificates of your own).
    A request that found no service, or whose connection broke, is sent again: all of them are safe to repeat.
    Thread-safe.
    """

    def __init__(
        self,
        url: str,
        *,
        call_seconds: float = 30.0,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        try:
            address = httpx.URL(url)
        except (httpx.InvalidURL, TypeError) as error:
            raise CallerError(f"the service's address {url!r} is no URL: {error}") from error
        if address.scheme not in ("http", "https") or not address.host:
            raise CallerError(f"the service's address is http://host:port or https://host, not {url!r}")
        self.url = str(address.copy_with(userinfo=b""))
        self._call_seconds = call_seconds
        self._clock = clock or SystemClock()
        self._client = httpx.Client(
            base_url=address,
            headers=dict(headers or {}),
            transport=transport,
            # Waiting for a run holds a connection for long; there is no reason for fewer than threads.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=50),
        )
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._holds: dict[str, set[Fence]] = {}

    # ---- workers

    def register_worker(self, workflows: Iterable[WorkflowSchema]) -> str:
        """See `Broker`."""
        body = {
            "workflows": [schema.model_dump(mode="json") for schema in workflows],
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        worker_id = str(self._ask("POST", "/worker/register", body=body)["worker_id"])
        with self._lock:
            self._holds[worker_id] = set()
        return worker_id

    def get_step(self, worker_id: str) -> StepAssignment | None:
        """See `Broker`."""
        answer = self._ask("GET", "/workflow/step", {"worker_id": worker_id})
        if answer is None:
            return None
        assignment = self._read(StepAssignment, answer)
        with self._lock:
            if worker_id in self._holds:
                self._holds[worker_id].add(fence(assignment))
        return assignment

    def report_step(self, worker_id: str, report: StepReport) -> None:
        """See `Broker`. Raises `MessageTooLargeError`, `InvalidMessageError` for a result that is not JSON."""
        try:
            self._ask("POST", "/workflow/step", {"worker_id": worker_id}, report)
        except CallerError:  # after any other error it is held still
            self._let_go(worker_id, report)
            raise
        self._let_go(worker_id, report)

    def _let_go(self, worker_id: str, report: StepReport) -> None:
        with self._lock:
            self._holds.get(worker_id, set()).discard(attempt_of(report))

    def keep_alive(self, worker_id: str) -> None:
        """See `Broker`. Says what this worker holds, so that a step whose answer got lost is not held for ever."""
        with self._lock:
            holds = sorted(self._holds[worker_id]) if worker_id in self._holds else None
        self._ask("POST", "/worker/keep-alive", body={"worker_id": worker_id, "holds": holds})

    # ---- runs

    def dispatch_workflow(
        self,
        workflow: WorkflowSchema,
        inputs: dict[str, Any] | None = None,
        *,
        instance_id: str | None = None,
    ) -> str:
        """See `Broker`. The run's id is made here, so that a request which is sent again begins no second run."""
        try:
            checked = decode(encode(inputs or {}))
        except InvalidMessageError as error:
            raise InvalidInputsError(f"inputs of workflow {workflow.workflow_id!r}: {error}") from error
        body = {
            "workflow": workflow.model_dump(mode="json"),
            "inputs": checked,
            "instance_id": instance_id or self._clock.new_id(),
        }
        return str(self._ask("POST", "/workflow/dispatch", body=body)["instance_id"])

    def get_run(self, instance_id: str) -> RunView:
        """See `Broker`."""
        return self._read(RunView, self._ask("GET", _run_path(instance_id)))

    def list_runs(
        self,
        *,
        workflow_id: str | None = None,
        state: RunStatus | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunSummary]:
        """See `Broker`."""
        query = {
            "workflow_id": workflow_id,
            "state": state.value if state is not None else None,
            "limit": str(limit),
            "before": before,
        }
        return self._read_list(_RUNS, self._ask("GET", "/runs", query))

    def cancel_run(self, instance_id: str) -> None:
        """See `Broker`."""
        self._ask("POST", _run_path(instance_id) + "/cancel")

    def list_dead_letters(
        self,
        *,
        workflow_id: str | None = None,
        instance_id: str | None = None,
        reason: DeadLetterReason | None = None,
        state: DeadLetterState | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[DeadLetterView]:
        """See `Broker`."""
        query = {
            "workflow_id": workflow_id,
            "instance_id": instance_id,
            "reason": reason.value if reason is not None else None,
            "state": state.value if state is not None else None,
            "limit": str(limit),
            "before": before,
        }
        return self._read_list(_LETTERS, self._ask("GET", "/dead-letters", query))

    def get_dead_letter(self, letter_id: str) -> DeadLetterDetail:
        """See `Broker`."""
        return self._read(DeadLetterDetail, self._ask("GET", _letter_path(letter_id)))

    def replay_dead_letter(self, letter_id: str) -> ReplayView:
        """See `Broker`."""
        return self._read(ReplayView, self._ask("POST", _letter_path(letter_id) + "/replay"))

    def discard_dead_letter(self, letter_id: str) -> DeadLetterView:
        """See `Broker`."""
        return self._read(DeadLetterView, self._ask("DELETE", _letter_path(letter_id)))

    def list_workers(self) -> list[WorkerView]:
        """See `Broker`."""
        return self._read_list(_WORKERS, self._ask("GET", "/workers"))

    def list_workflows(self) -> list[WorkflowView]:
        """See `Broker`."""
        return self._read_list(_WORKFLOWS, self._ask("GET", "/workflows"))

    def get_workflow(self, workflow_id: str, version: str | None = None) -> WorkflowSchema:
        """See `Broker`."""
        query = {"workflow_id": workflow_id, "version": version}
        return self._read(WorkflowSchema, self._ask("GET", "/workflow/definition", query))

    def status(self) -> Mapping[str, Any]:
        """See `Broker`. It is the status of the broker behind the service."""
        answer: dict[str, Any] = self._ask("GET", "/status")
        return answer

    def wait(self, instance_id: str, timeout: float | None = None) -> RunView:
        """See `Broker`. By requests that the service answers when the run has ended."""
        ends = None if timeout is None else self._clock.monotonic() + timeout
        while True:
            left = LONG_POLL_SECONDS if ends is None else max(0.0, ends - self._clock.monotonic())
            seconds = min(left, LONG_POLL_SECONDS)
            path = _run_path(instance_id) + "/wait"
            answer = self._ask("GET", path, {"timeout_seconds": f"{seconds:.3f}"}, extra_seconds=seconds)
            if answer is not None:
                return self._read(RunView, answer)
            if ends is not None and self._clock.monotonic() >= ends:
                raise DeadlineExceededError(f"run {instance_id} did not end within {timeout:g} s; it goes on")

    def close(self) -> None:
        """Disconnect."""
        self._closed.set()
        self._client.close()

    # ---- asking the service

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | None] | None = None,
        body: Any = None,
        *,
        extra_seconds: float = 0.0,
    ) -> Any:
        """The JSON of the answer; None when it has none. Raises what the service met, as what it was there."""
        content = None if body is None else encode(body, nesting=MAX_WRAPPED_NESTING)
        params = {name: value for name, value in (query or {}).items() if value is not None}
        response = self._send(method, path, params, content, self._call_seconds + extra_seconds)
        if not response.is_success:
            raise_problem(response.status_code, response.content, f"{method} {self.url.rstrip('/')}{path}")
        if response.status_code == httpx.codes.NO_CONTENT:
            return None
        try:
            return decode(response.content, nesting=MAX_WRAPPED_NESTING)
        except InvalidMessageError as error:
            raise self._strange(error) from error

    def _send(
        self, method: str, path: str, params: dict[str, str], content: bytes | None, seconds: float
    ) -> httpx.Response:
        if self._closed.is_set():
            raise BrokerUnavailableError("the broker is closed")
        now = self._clock.monotonic()
        deadline, patience = now + seconds, now + min(seconds, RECONNECT_SECONDS)
        pause = _PAUSE_SECONDS[0]
        headers = {} if content is None else {"content-type": "application/json"}
        while True:
            left = max(0.01, deadline - self._clock.monotonic())
            try:
                return self._client.request(
                    method, path, params=params, content=content, headers=headers, timeout=left
                )
            except httpx.TimeoutException as error:
                raise DeadlineExceededError(
                    f"{self.url} did not answer {method} {path} within {seconds:g} s"
                ) from error
            except (httpx.TransportError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and not self._closed.is_set():
                    raise  # httpx says so, in this class, of a client that was closed meanwhile
                if self._closed.is_set() or self._clock.monotonic() + pause >= patience:
                    raise BrokerUnavailableError(f"cannot reach {self.url}: {error}") from error
            self._closed.wait(pause)
            pause = min(pause * 2, _PAUSE_SECONDS[1])

    def _read(self, model: type[Model], answer: Any) -> Model:
        try:
            return model.model_validate(answer)
        except ValidationError as error:
            raise self._strange(error) from error

    def _read_list(self, adapter: TypeAdapter[list[Model]], answer: Any) -> list[Model]:
        try:
            return adapter.validate_python(answer)
        except ValidationError as error:
            raise self._strange(error) from error

    def _strange(self, error: ValueError) -> BrokerUnavailableError:
        told = " ".join(str(error).split())
        return BrokerUnavailableError(f"what {self.url} answers is not a Fuseline service's: {told:.300}")


def _run_path(instance_id: str) -> str:
    return f"/runs/{quote(instance_id, safe='')}"


def _letter_path(letter_id: str) -> str:
    return f"/dead-letters/{quote(letter_id, safe='')}"
