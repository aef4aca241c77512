"""What can go wrong with a benchmark."""

from __future__ import annotations

from fuseline.errors import CallerError, FatalError


class BenchFailedError(FatalError):
    """A system did not do its work; the message has the end of the log of what failed."""

    code = "bench_failed"


class BenchRefusedError(CallerError):
    """What was asked for cannot be measured, or would harm something."""

    code = "bench_refused"
