"""The states of steps and runs. Why a step failed is a field (`StepError.cause`), not one more state."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """State of one step in one run. `is_terminal`: the step will not change any more."""

    __hash__ = (
        str.__hash__
    )  # the one of enumerations is written in Python, and every event pays it several times

    is_terminal: bool

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"


for _status in Status:
    _status.is_terminal = _status.value in ("SUCCEEDED", "FAILED", "CANCELLED", "SKIPPED")


class RunStatus(StrEnum):
    """State of one run. `is_terminal`: it will not change any more, unless an operator replays one of its dead letters."""

    __hash__ = str.__hash__

    is_terminal: bool

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


for _run_status in RunStatus:
    _run_status.is_terminal = _run_status is not RunStatus.RUNNING


class DeadLetterState(StrEnum):
    """What has become of a dead letter."""

    OPEN = "open"  # nobody has dealt with it
    REPLAYED = "replayed"  # its step got a fresh attempt
    DISCARDED = "discarded"  # somebody decided that it stays as it is


class DeadLetterReason(StrEnum):
    """Why a step has no attempt left."""

    EXPIRED = "expired"  # no worker took it within its expiry
    POISON = "poison"  # every worker that took it was lost: leases, or RabbitMQ's delivery limit
    REJECTED = "rejected"  # a worker refused the assignment
    TIMEOUT = "timeout"  # it ran longer than its execution timeout
    INVALID = "invalid"  # its inputs, result or assignment did not fit
    FAILED = "failed"  # its body raised, and its retries are used up


class Trigger(StrEnum):
    """When a step with several requirements starts (`TriggerPolicy`).

    `is_cleanup`: the rules whose steps still start in a failing run.
    """

    is_cleanup: bool

    ALL_SUCCESS = "all_success"
    ALL_DONE = "all_done"
    ONE_SUCCESS = "one_success"
    ONE_FAILED = "one_failed"


for _trigger in Trigger:
    _trigger.is_cleanup = _trigger in (Trigger.ALL_DONE, Trigger.ONE_FAILED)
