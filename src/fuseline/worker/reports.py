"""Reports that the worker itself makes, and the last check before any report leaves it.

Whatever goes wrong with a step is a report that says so: nothing a body does or returns ends the worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fuseline.amqp import codec
from fuseline.clock import Clock
from fuseline.errors import InvalidMessageError
from fuseline.model.messages import PROCESS_DIED, Cause, StepAssignment, StepError, StepReport
from fuseline.model.status import Status
from fuseline.workflow.failure import MAX_TEXT, step_error, timeout_error, timeout_of

_SURELY_FLAT: Final = codec.MAX_NESTING // 2
"""With so few brackets a result nests less than a message may."""
DIED_TYPES: Final = [PROCESS_DIED, "RuntimeError", "Exception"]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A report that can be sent: `body` is its JSON, within the size limit."""

    report: StepReport
    body: bytes

    def plain(self) -> StepReport:
        """The report as every receiver sees it: its result in JSON types."""
        return StepReport(**codec.decode(self.body))


@dataclass(frozen=True, slots=True)
class Sealer:
    """Makes reports ready to travel. `max_bytes`: the largest body; a larger one becomes a FAILED report."""

    clock: Clock
    max_bytes: int
    worker_id: str | None = None

    def seal(
        self, report: StepReport, started_at: float | None = None, result_text: bytes | None = None
    ) -> Sealed:
        """`report` with the worker's id and times, encoded. What JSON cannot say fails the step and names the place.

        `result_text` is the JSON of its result where somebody has it already, and found that it can travel; what has no
        result says nothing of it.
        """
        update: dict[str, Any] = {}
        if self.worker_id and self.worker_id != report.worker_id:
            update["worker_id"] = self.worker_id
        if report.started_at is None:
            update["started_at"] = started_at
        if report.finished_at is None:
            update["finished_at"] = self.clock.now()
        if report.error is not None:
            update["error"] = _bounded(report.error)
        if update:  # a copy by pydantic costs as much as encoding it does
            report = StepReport.of_checked(report.__dict__ | update)
        try:
            body = _encode(report, result_text)
        except InvalidMessageError as error:
            return self._invalid(report, "ResultNotJSON", f"the result cannot travel as JSON: {error}")
        if len(body) > self.max_bytes:
            text = f"the report is {len(body)} bytes long, and {self.max_bytes} are allowed"
            return self._invalid(report, "MessageTooLargeError", text)
        return Sealed(report, body)

    def _invalid(self, report: StepReport, kind: str, message: str) -> Sealed:
        error = StepError(
            type=kind, message=_text(message), cause=Cause.INVALID, types=[kind, "ValueError", "Exception"]
        )
        failed = report.model_copy(
            update={"state": Status.FAILED, "result": None, "action": None, "error": error, "decision": None}
        )
        return Sealed(failed, codec.encode(failed))


def timed_out(assignment: StepAssignment) -> StepReport:
    """The attempt ran longer than its execution timeout, and was ended or abandoned by its worker."""
    return _report(assignment, Status.FAILED, timeout_error(timeout_of(assignment)))


def cancelled(assignment: StepAssignment) -> StepReport:
    """The worker was told to stop the attempt."""
    return _report(assignment, Status.CANCELLED, None)


def died(assignment: StepAssignment, exit_code: int | None) -> StepReport:
    """The process that executed the attempt is gone. `exit_code` is negative for a signal, as `Process.exitcode`."""
    if exit_code is not None and exit_code < 0:
        how = f"was killed by signal {-exit_code}"
    else:
        how = f"exited with code {exit_code}"
    message = f"the process that executed attempt {assignment.attempt} {how}"
    error = StepError(type=PROCESS_DIED, message=message, types=list(DIED_TYPES))
    return _report(assignment, Status.FAILED, error)


def crashed(assignment: StepAssignment, error: BaseException, cause: Cause = Cause.ERROR) -> StepReport:
    """Something was raised that is no business of the step's own failure handling, such as SystemExit in a body."""
    return _report(assignment, Status.FAILED, step_error(error, cause))


def _encode(report: StepReport, result_text: bytes | None) -> bytes:
    """All that the report says; what it says nothing about is left out. Raises `InvalidMessageError`."""
    said = {name: value for name, value in report.__dict__.items() if value is not None}
    if (
        result_text is None
        or "result" not in said
        or result_text.count(b"[") + result_text.count(b"{") > _SURELY_FLAT
    ):
        return codec.encode(said)
    del said["result"]
    return codec.encode(said)[:-1] + b',"result":' + result_text + b"}"


def _report(assignment: StepAssignment, state: Status, error: StepError | None) -> StepReport:
    return StepReport(
        workflow_id=assignment.workflow_id,
        instance_id=assignment.instance_id,
        step_name=assignment.step_name,
        attempt=assignment.attempt,
        state=state,
        error=error,
    )


def _bounded(error: StepError) -> StepError:
    traceback = None if error.traceback is None else _text(error.traceback, tail=True)
    return error.model_copy(update={"message": _text(error.message), "traceback": traceback})


def _text(text: str, *, tail: bool = False) -> str:
    """Bounded, and without lone surrogates (a path that is not UTF-8), which no JSON can carry."""
    if len(text) > MAX_TEXT:
        text = f"...{text[-MAX_TEXT:]}" if tail else f"{text[:MAX_TEXT]}..."
    return text.encode("utf-8", "backslashreplace").decode()
