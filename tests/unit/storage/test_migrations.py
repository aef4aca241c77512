"""The tables come by migrations, once, whole, and by one at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, text

from fuseline.errors import MigrationError
from fuseline.storage.migrations import running
from fuseline.storage.sql import check, current, open_storage, upgrade
from fuseline.storage.sql.tables import REVISION, VERSION_TABLE, metadata

Url = str


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Url:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/runs 100%.db"
    found: str = request.getfixturevalue("fresh_postgres_url")
    return found


def engine_of(url: Url) -> Engine:
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"))


def execute(url: Url, *statements: str) -> None:
    engine = engine_of(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_the_migrated_tables_are_those_that_the_code_works_with(url: Url) -> None:
    upgrade(url)
    engine = engine_of(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []
        found = inspect(connection)
        for table in metadata.tables.values():
            key = found.get_pk_constraint(table.name)["constrained_columns"]
            assert key == [column.name for column in table.primary_key]
            assert {index["name"] for index in found.get_indexes(table.name)} == {
                index.name for index in table.indexes
            }
    engine.dispose()


def test_the_revisions_are_one_line_of_numbers_up_to_the_codes() -> None:
    revisions = [one.revision for one in ScriptDirectory.from_config(running.config()).walk_revisions()]
    assert revisions == sorted(revisions, reverse=True)
    assert revisions[0] == REVISION
    assert all(len(one) == 4 and one.isdigit() for one in revisions)


def test_upgrading_twice_is_upgrading_once(url: Url) -> None:
    assert current(url) is None
    upgrade(url)
    assert current(url) == REVISION
    upgrade(url)
    check(url)


def test_what_has_no_tables_says_what_to_do(url: Url) -> None:
    with pytest.raises(MigrationError, match="fuseline db upgrade"):
        check(url)
    assert current(url) is None


def test_looking_at_a_file_that_is_not_there_does_not_make_it(tmp_path: Path) -> None:
    assert current(f"sqlite:///{tmp_path}/none.db") is None
    assert list(tmp_path.iterdir()) == []


def test_tables_of_a_newer_version_are_left_alone(url: Url) -> None:
    upgrade(url)
    execute(url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    for act in (check, upgrade, open_storage):
        with pytest.raises(MigrationError, match="upgrade Fuseline"):
            act(url)
    assert current(url) == "9999"


def test_tables_from_before_the_first_release_are_refused(url: Url) -> None:
    execute(url, "CREATE TABLE fuseline_revision (revision INTEGER)")
    with pytest.raises(MigrationError, match="empty database"):
        upgrade(url)


def test_many_that_upgrade_at_once_take_turns(url: Url) -> None:
    failures: list[BaseException] = []

    def run(act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(lambda: upgrade(url),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    check(url)


def test_an_upgrade_that_fails_leaves_nothing_half_done(url: Url) -> None:
    """The last table it would make is in its way; those before it must not stay."""
    execute(url, "CREATE TABLE fuseline_workers (something INTEGER)")
    with pytest.raises(Exception, match="fuseline_workers"):
        upgrade(url)
    engine = engine_of(url)
    assert inspect(engine).get_table_names() == ["fuseline_workers"]
    engine.dispose()
    execute(url, "DROP TABLE fuseline_workers")
    upgrade(url)
    check(url)


def test_a_database_that_is_up_to_date_is_opened_without_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    upgrade(url)
    program = (
        "import sys; from fuseline.storage import SqliteRuntimeStorage; "
        f"SqliteRuntimeStorage({url!r}).close(); print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
