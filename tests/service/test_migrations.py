"""The migrations make what the models say, on both databases, and can be undone."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import structlog
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlmodel import SQLModel, select

from service.domain.errors import Unavailable
from service.store import database as store
from service.store import migrate
from service.store.database import Database
from service.store.tables import DEFAULT_PROJECT, Job, Project
from service.usecases import api_keys
from tests.support.installation import wait_until

pytestmark = pytest.mark.both_databases


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_up_equals_the_models_and_down_and_up_again(kind, tmp_path, request):
    url = f"sqlite:///{tmp_path / 'new.db'}"
    if kind == "postgresql":
        url = request.getfixturevalue("empty_postgres")
    database = Database(url)

    def differences():
        with database.read() as session:
            context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
            return compare_metadata(context, SQLModel.metadata)

    assert not migrate.is_current(database)
    migrate.upgrade(database)
    assert migrate.is_current(database)
    assert differences() == []

    migrate.downgrade(database, "base")
    assert set(inspect(database.engine).get_table_names()) <= {"alembic_version"}
    assert not migrate.is_current(database)

    migrate.upgrade(database)
    migrate.upgrade(database)  # nothing to do is no error
    assert differences() == []
    database.dispose()


def test_the_newest_revisions_can_be_undone_with_rows_in_them(context, run_id):
    """On SQLite a table that others refer to cannot be made anew: its rows are in the way."""
    with context.database.write() as session:
        session.connection().exec_driver_sql("UPDATE job SET queued_at = '2026-01-02 03:04:05'")
    migrate.downgrade(context.database, "0006")
    assert not migrate.is_current(context.database)
    migrate.upgrade(context.database)
    with context.database.read() as session:
        (job,) = session.exec(select(Job))
        queued_at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        assert (job.run_id, job.queued_at, job.deleted_at) == (run_id, queued_at, None)


def test_nobody_sees_the_schema_without_what_was_to_be_done_with_it(tmp_path, postgres):
    """A server that waits for the schema would else start before its first key is there."""
    postgres.psql("CREATE DATABASE half;")
    urls = (f"sqlite:///{tmp_path / 'new.db'}", postgres.get_uri("half", driver="psycopg"))

    def fail(session):
        assert session.get(Project, DEFAULT_PROJECT) is not None
        raise ZeroDivisionError

    for url in urls:
        database = Database(url)
        with pytest.raises(ZeroDivisionError):
            migrate.upgrade(database, then=fail)
        assert not migrate.is_current(database)
        assert inspect(database.engine).get_table_names() == []
        migrate.upgrade(database)
        assert migrate.is_current(database)
        database.dispose()


def test_who_reads_a_table_is_not_held_up_by_a_migration_that_waits_for_it(postgres, monkeypatch):
    """A dump holds the table for as long as it takes; everybody else goes on reading."""
    postgres.psql("CREATE DATABASE held;")
    url = postgres.get_uri("held", driver="psycopg")
    database = Database(url)
    migrate.upgrade(database, "0002")
    monkeypatch.setattr(migrate, "_TABLE_WAIT_MS", 200)
    monkeypatch.setattr(migrate, "_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(migrate, "_TRIES", 1000)
    monkeypatch.setattr(store, "LOCK_WAIT_MS", 5000)
    monkeypatch.setattr(store, "IDLE_IN_TRANSACTION_MS", 0)
    reader, holder = Database(url), Database(url)
    done = []

    def waiting() -> bool:
        with reader.read() as session:
            asked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'job'::regclass"
            return session.connection().exec_driver_sql(asked).scalar() > 0

    def upgrade() -> None:
        migrate.upgrade(database, then=lambda _: done.append(None))

    with structlog.testing.capture_logs() as lines, ThreadPoolExecutor(1) as pool:
        with holder.read() as dump:
            dump.execute(text("SELECT count(*) FROM job"))
            migrating = pool.submit(upgrade)
            wait_until(waiting, 20)
            with reader.read() as session:
                assert session.execute(text("SELECT count(*) FROM job")).scalar() == 0
            wait_until(lambda: lines, 20)
            assert not migrating.done()
            dump.rollback()
        migrating.result(timeout=60)
    assert migrate.is_current(database)
    assert len(done) == 1
    said = lines[0]
    assert said["log_level"] == "warning"
    assert "ALTER TABLE job" in said["statement"]
    assert said["open_transactions"]
    for one in (database, reader, holder):
        one.dispose()


def test_a_migration_gives_up_on_a_table_that_stays_held(postgres, monkeypatch):
    postgres.psql("CREATE DATABASE held_for_good;")
    url = postgres.get_uri("held_for_good", driver="psycopg")
    database, other = Database(url), Database(url)
    migrate.upgrade(database, "0002")
    monkeypatch.setattr(migrate, "_TABLE_WAIT_MS", 50)
    monkeypatch.setattr(migrate, "_PAUSE_SECONDS", 0)
    monkeypatch.setattr(migrate, "_TRIES", 3)
    with structlog.testing.capture_logs() as lines, other.read() as dump:
        dump.execute(text("SELECT count(*) FROM job"))
        with pytest.raises(Unavailable, match="lock timeout"):
            api_keys.migrate_with_first(database)
    assert [line["tries_left"] for line in lines] == [2, 1]
    assert api_keys.migrate_with_first(database).key.row.name == "first-admin"
    for one in (database, other):
        one.dispose()


def test_sqlite_is_in_wal_with_a_busy_timeout(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    with database.read() as session:
        pragma = session.connection().exec_driver_sql
        assert pragma("PRAGMA journal_mode").scalar() == "wal"
        assert pragma("PRAGMA busy_timeout").scalar() >= 5_000
        assert pragma("PRAGMA foreign_keys").scalar() == 1
    database.dispose()


def test_a_client_that_vanished_in_a_transaction_holds_no_row(migrated_postgres, monkeypatch):
    """The server ends its transaction, so that the sweep can take the row."""
    from sqlalchemy import text

    from service.domain.errors import Unavailable
    from service.store import database as module

    monkeypatch.setattr(module, "IDLE_IN_TRANSACTION_MS", 300)
    vanished = Database(migrated_postgres)
    other = Database(migrated_postgres)
    taken = False
    with pytest.raises(Unavailable), vanished.write() as session:  # noqa: PT012 - one transaction
        session.execute(text("UPDATE project SET id = id"))
        with other.write() as waiting:  # Unavailable, too, if the row stays held
            waiting.execute(text("UPDATE project SET id = id"))
        taken = True
    assert taken
    vanished.dispose()
    other.dispose()


def test_a_server_that_is_read_only_for_a_while_is_away(migrated_postgres):
    """As during a failover: nothing that a run should fail for."""
    from sqlalchemy import text

    from service.domain.errors import Unavailable

    database = Database(migrated_postgres)
    with pytest.raises(Unavailable), database.write() as session:  # noqa: PT012 - one transaction
        session.execute(text("SET TRANSACTION READ ONLY"))
        session.execute(text("UPDATE project SET id = id"))
    database.dispose()
