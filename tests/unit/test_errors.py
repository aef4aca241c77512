"""The tree of errors: its first level says who can do something about it, and a code survives the wire (P7)."""

from __future__ import annotations

import re

import pytest

from fuseline import errors
from fuseline.errors import (
    ERRORS_BY_CODE,
    BrokerBusyError,
    CallerError,
    FatalError,
    FuselineError,
    RetryableError,
    RunFailed,
    StorageUnavailableError,
    error_from_code,
)

ALL = [
    thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, FuselineError)
]
SIDES = (CallerError, RetryableError, FatalError)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_is_on_exactly_one_side_and_says_what_it_means(kind: type[FuselineError]) -> None:
    assert kind.__doc__
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)
    if kind not in (FuselineError, RunFailed):
        assert sum(issubclass(kind, side) for side in SIDES) == 1


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_error_that_came_over_the_wire_is_raised_as_what_it_was(kind: type[FuselineError]) -> None:
    error = error_from_code(kind.code, "what happened")
    assert type(error) is kind
    assert str(error) == "what happened"


def test_no_two_errors_share_a_code() -> None:
    assert len(ERRORS_BY_CODE) == len({kind.code for kind in ALL}) == len(ALL)


def test_a_code_of_a_later_version_is_still_an_error_of_ours() -> None:
    error = error_from_code("not_invented_yet", "what happened")
    assert type(error) is FuselineError
    assert str(error) == "what happened"


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.InvalidSchemaError, ValueError),
        (errors.InvalidInputsError, ValueError),
        (errors.InvalidMessageError, ValueError),
        (errors.MessageTooLargeError, ValueError),
        (errors.PolicyError, ValueError),
        (errors.UnknownRunError, LookupError),
        (errors.UnknownStepError, LookupError),
        (errors.UnknownWorkerError, LookupError),
        (errors.UnknownWorkflowError, LookupError),
        (errors.UnsupportedError, NotImplementedError),
        (errors.BrokerUnavailableError, ConnectionError),
        (errors.DeadlineExceededError, TimeoutError),
    ],
)
def test_who_knows_python_catches_them_too(kind: type[FuselineError], builtin: type[Exception]) -> None:
    assert issubclass(kind, builtin)


def test_being_busy_may_pass_and_being_wrong_does_not() -> None:
    assert issubclass(BrokerBusyError, RetryableError)
    assert not issubclass(errors.StaleReportError, RetryableError)


def test_a_failed_run_carries_what_is_known_of_it() -> None:
    error = RunFailed("step 'a' failed", step="a", error="why", run="view")
    assert (str(error), error.step, error.error, error.run) == ("step 'a' failed", "a", "why", "view")
    bare = RunFailed("cancelled")
    assert (bare.step, bare.error, bare.run) == (None, None, None)


def test_an_error_of_storage_needs_no_words_and_none_of_its_own_to_be_asked_about() -> None:
    """Storages of users' own raise it, and kinds of it, as they could before it told of conflicts."""

    class Their(StorageUnavailableError):
        def __init__(self) -> None:
            Exception.__init__(self, "theirs")

    assert not StorageUnavailableError().is_conflict
    assert not Their().is_conflict
    assert StorageUnavailableError("there", is_conflict=True).is_conflict
