"""Every exception that Fuseline raises on purpose, in one tree.

The first level says who can do something about it: the caller (`CallerError`: the same call fails again), time
(`RetryableError`: the same call may succeed later), or an operator (`FatalError`: the process cannot go on). `code` is
the name that travels over AMQP and HTTP, so that a remote error is raised again as what it was.
"""

from __future__ import annotations

from typing import ClassVar


class FuselineError(Exception):
    """The root: catch this to catch whatever Fuseline raises on purpose."""

    code: ClassVar[str] = "fuseline_error"


class CallerError(FuselineError):
    """The call was wrong; the same call fails again."""

    code = "caller_error"


class RetryableError(FuselineError):
    """The call was right and something was away; the same call may succeed later."""

    code = "retryable_error"


class FatalError(FuselineError):
    """This process cannot go on until somebody changes its surroundings."""

    code = "fatal_error"


class InvalidSchemaError(CallerError, ValueError):
    """A workflow definition contradicts itself, or exceeds a limit; the message names the step or edge."""

    code = "invalid_schema"


class SchemaConflictError(CallerError):
    """A known (workflow_id, version) was registered with another graph; the message names the first difference."""

    code = "schema_conflict"


class InvalidInputsError(CallerError, ValueError):
    """Run inputs do not fit the workflow's input schema; the message names the field."""

    code = "invalid_inputs"


class InvalidMessageError(CallerError, ValueError):
    """A message could not be decoded or lacks a field; the message names the field."""

    code = "invalid_message"


class PolicyError(CallerError, ValueError):
    """A policy's configuration is wrong or its name is not registered."""

    code = "invalid_policy"


class UnknownWorkerError(CallerError, LookupError):
    """No worker with this id is registered (it may have been silent too long); register again."""

    code = "unknown_worker"


class UnknownRunError(CallerError, LookupError):
    """No run with this instance_id is known."""

    code = "unknown_run"


class UnknownStepError(CallerError, LookupError):
    """The workflow has no step with this name."""

    code = "unknown_step"


class UnknownWorkflowError(CallerError, LookupError):
    """No workflow with this id and version is registered."""

    code = "unknown_workflow"


class DefinitionNeededError(CallerError, LookupError):
    """A workflow was named by its definition's digest, and no version with that digest is registered: send it whole."""

    code = "definition_needed"


class UnknownDeadLetterError(CallerError, LookupError):
    """No dead letter with this id is known (its run may have been purged)."""

    code = "unknown_dead_letter"


class NotReplayableError(CallerError):
    """A dead letter cannot be replayed or discarded as things are; the message says why, and nothing was changed."""

    code = "not_replayable"


class StaleReportError(CallerError):
    """A report came for an attempt that is over, or from a worker that no longer holds it (P3, P5); nothing changed."""

    code = "stale_report"


class UnsupportedError(CallerError, NotImplementedError):
    """This broker does not offer the operation."""

    code = "not_supported"


class MessageTooLargeError(CallerError, ValueError):
    """An input or a result is over the size limit; the message gives both figures in bytes."""

    code = "message_too_large"


class LoadError(CallerError):
    """`module:attribute` could not be turned into a workflow; the message says at which part it failed."""

    code = "load_error"


class BrokerUnavailableError(RetryableError, ConnectionError):
    """RabbitMQ (or the remote broker) cannot be reached, or the connection broke before the answer came."""

    code = "broker_unavailable"


class BrokerBusyError(RetryableError):
    """RabbitMQ blocks publishers (a memory or disk alarm) or refused the message; the deadline passed meanwhile."""

    code = "broker_busy"


class UnroutableError(RetryableError):
    """A message reached no queue: the message names its exchange and key. The topology is lost or not applied yet."""

    code = "unroutable"


class DeadlineExceededError(RetryableError, TimeoutError):
    """No answer within the call's deadline. The call may still take effect: all calls are safe to repeat."""

    code = "deadline_exceeded"


class StorageUnavailableError(RetryableError):
    """The database cannot be reached, or refused for a reason that passes (lock timeout, full disk).

    `is_conflict`: what was to be new is there already, and nothing was written.
    """

    code = "storage_unavailable"

    is_conflict: bool = False

    def __init__(self, *message: object, is_conflict: bool = False) -> None:
        super().__init__(*message)
        if is_conflict:
            self.is_conflict = True


class SecondCoordinatorError(FatalError):
    """Another coordinator holds this SQLite database; SQLite admits one."""

    code = "second_coordinator"


class MigrationError(FatalError):
    """The database's schema is not the one that this version of Fuseline works with."""

    code = "migration_needed"


class AccessRefusedError(FatalError):
    """RabbitMQ knows the user, but not this right; the message is the server's and names what was refused."""

    code = "access_refused"


class TopologyError(FatalError):
    """RabbitMQ has an exchange or queue of ours with other arguments, or lacks one that may not be declared here."""

    code = "topology_mismatch"


class RunFailed(FuselineError):
    """A run that was executed in this process ended FAILED or CANCELLED.

    `step` is the failing step's name (None when the run was cancelled or timed out), `error` its `StepError`, `run` the
    `RunView` at the end.
    """

    code = "run_failed"

    def __init__(
        self, message: str, *, step: str | None = None, error: object = None, run: object = None
    ) -> None:
        super().__init__(message)
        self.step = step
        self.error = error
        self.run = run


def _all_errors(root: type[FuselineError]) -> dict[str, type[FuselineError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _all_errors(child)
    return found


ERRORS_BY_CODE: dict[str, type[FuselineError]] = _all_errors(FuselineError)


def error_from_code(code: str, message: str) -> FuselineError:
    """Raise-able exception for an error that came over the wire; an unknown `code` becomes a plain `FuselineError`."""
    return ERRORS_BY_CODE.get(code, FuselineError)(message)
