"""What a failure looks like: one line on stderr that says what to do, and an exit code that a script can tell apart."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import typer
from pydantic import ValidationError

from fuseline.errors import CallerError, FatalError, FuselineError, RetryableError


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    FAILED = 1  # a run that did not succeed, a check that found something
    USAGE = 2  # wrong options or settings
    CALLER = 3  # the request was wrong: the same one fails again
    RETRYABLE = 4  # something is away or slow: the same one may succeed later
    FATAL = 5  # somebody has to change something first
    INTERRUPTED = 130


class UsageError(CallerError):
    """Options or settings that make no sense, alone or together."""

    code = "usage"


class Failure(NamedTuple):
    """`code` is the error's name in the documentation; `exit_code` the program's."""

    code: str
    message: str
    exit_code: ExitCode


@contextlib.contextmanager
def failing(*, debug: bool = False) -> Iterator[None]:
    """Turn what is raised on purpose into its line and `typer.Exit`; with `debug` the trace comes before the line.

    Anything else is a mistake of ours and goes on, with its trace.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except (FuselineError, ValidationError) as error:
        failure = describe(error)
        if debug:
            traceback.print_exception(error)
        # One line even for a message of several: scripts and logs read lines.
        sys.stderr.write(f"fuseline: {failure.code}: {' '.join(failure.message.split())}\n")
        raise typer.Exit(failure.exit_code) from error


def describe(error: FuselineError | ValidationError) -> Failure:
    """How to tell of `error`."""
    match error:
        case ValidationError():
            return Failure(
                "settings" if error.title == "Settings" else "invalid", first_problem(error), ExitCode.USAGE
            )
        case UsageError():
            exit_code = ExitCode.USAGE
        case CallerError():
            exit_code = ExitCode.CALLER
        case RetryableError():
            exit_code = ExitCode.RETRYABLE
        case FatalError():
            exit_code = ExitCode.FATAL
        case _:
            exit_code = ExitCode.FAILED
    return Failure(error.code, str(error), exit_code)


def first_problem(error: ValidationError) -> str:
    """Of a pydantic model: which field, and why."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if error.title == "Settings":
        option = where.replace("_", "-")
        return f"FUSELINE_{where.upper()} (--{option}): {message}; it is {problem['input']!r}"
    return f"{error.title}{f' {where}' if where else ''}: {message}"
