"""The database: reachable, migrated, and whether its clock agrees with ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from fuseline.cli.doctor.checks import Check, Health
from fuseline.cli.doctor.clock import compare_clocks
from fuseline.cli.wiring import is_sqlite
from fuseline.clock import Clock
from fuseline.errors import FuselineError, MigrationError
from fuseline.settings import Settings
from fuseline.storage.sql import check, open_storage


def examine_database(settings: Settings, clock: Clock) -> Iterator[Check]:
    """One check after another. Without a setting and without a file there is nothing that could be wrong."""
    url = settings.database_url
    where = shown(url)
    if is_sqlite(url) and not Path(urlsplit(url).path.removeprefix("/")).exists():
        if "database_url" not in settings.model_fields_set:
            yield Check("database", Health.NOTE, "none is set here; only coordinators need one")
        else:
            yield Check(
                "database", Health.PROBLEM, f"{where}: there is no such file", "fuseline db upgrade makes it"
            )
        return
    try:
        check(url)
        storage = open_storage(url)
    except MigrationError as error:
        # Which of the two is older decides what to do; the error says so at its end.
        told, _, advice = str(error).rpartition(": ")
        yield Check("database", Health.PROBLEM, f"{where}: {told}", advice)
        return
    except FuselineError as error:
        yield Check(
            "database", Health.PROBLEM, f"{where}: {error}", "start it, or correct FUSELINE_DATABASE_URL"
        )
        return
    try:
        counts = storage.count_runs()
        told = ", ".join(f"{count} {state.value.lower()}" for state, count in counts.items() if count)
        yield Check("database", Health.OK, f"{where}: reachable and migrated; runs: {told or 'none'}")
        if not is_sqlite(url):
            yield compare_clocks("the database", storage.now, clock)
    except FuselineError as error:
        yield Check("database", Health.PROBLEM, f"{where}: {error}", "look at the database's log")
    finally:
        storage.close()


def shown(url: str) -> str:
    """The address without its password."""
    parts = urlsplit(url)
    head, at, host = parts.netloc.rpartition("@")
    user = head.partition(":")[0]
    return parts._replace(netloc=f"{user}{at}{host}", query="").geturl()
