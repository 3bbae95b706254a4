"""Migration of a database to the schema of this version."""

import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

import migrations
from service.domain.errors import Unavailable
from service.store.database import Database

log = structlog.get_logger()

# Any number will do; two migrating processes must use the same one.
_LOCK = 5_226_911_407
# While ALTER TABLE waits for a transaction that locks the table (a pg_dump, say), readers wait
# behind it. So it gives up soon, and tries again after a pause for them.
_TABLE_WAIT_MS = 5_000
_PAUSE_SECONDS = 2.0
_TRIES = 24
_LOCK_NOT_AVAILABLE = "55P03"


def config() -> Config:
    """Return Alembic's configuration for the migrations of this version."""
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return configuration


def upgrade(
    database: Database,
    revision: str = "head",
    *,
    then: Callable[[Session], None] = lambda _: None,
) -> None:
    """Migrate to `revision`. Several processes may call it at once: one works, the others wait.

    `then` runs in the same transaction, so that nobody sees the schema without its effects; it is
    called again in each try. Raises Unavailable, also if a table stays locked for minutes.
    """
    for left in reversed(range(_TRIES)):
        try:
            _upgrade(database, revision, then)
        except Unavailable as error:
            cause = error.__cause__
            if not isinstance(cause, DBAPIError) or not left:
                raise
            if getattr(cause.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            log.warning(
                "waiting for a table that another transaction locks",
                statement=cause.statement,
                open_transactions=_open_transactions(database),
                tries_left=left,
            )
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _upgrade(database: Database, revision: str, then: Callable[[Session], None]) -> None:
    with database.write() as session:
        connection = session.connection()
        if not database.is_sqlite:  # on SQLite the write transaction itself is the lock
            connection.execute(text("SET LOCAL lock_timeout = 0"))  # another migrates: wait
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            connection.execute(text(f"SET LOCAL lock_timeout = {_TABLE_WAIT_MS}"))
        configuration = config()
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, revision)
        then(session)


def _open_transactions(database: Database) -> list[str]:
    """Return PostgreSQL's sessions in a transaction, oldest first: one of them locks the table."""
    with database.read() as session:
        transactions = session.connection().execute(
            text(
                "SELECT pid, application_name, extract(epoch FROM now() - xact_start)::int "
                "FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND xact_start IS NOT NULL ORDER BY xact_start LIMIT 5"
            )
        )
        return [f"pid {pid} {name or '(no name)'}, for {age} s" for pid, name, age in transactions]


def downgrade(database: Database, revision: str) -> None:
    with database.write() as session:
        configuration = config()
        configuration.attributes["connection"] = session.connection()
        command.downgrade(configuration, revision)


class Schema(StrEnum):
    """State of a database's schema compared with this version's."""

    CURRENT = "current"
    BEHIND = "behind"
    """Empty, or an older version's: `upgrade` migrates it."""
    AHEAD = "ahead"
    """It has a revision unknown to this version: a newer one has migrated it."""


def schema(database: Database) -> Schema:
    """Raises Unavailable."""
    with database.read() as session:
        heads = set(MigrationContext.configure(session.connection()).get_current_heads())
    script = ScriptDirectory.from_config(config())
    if heads == set(script.get_heads()):
        return Schema.CURRENT
    revisions = {revision.revision for revision in script.walk_revisions()}
    return Schema.BEHIND if heads <= revisions else Schema.AHEAD


def is_current(database: Database) -> bool:
    """Return True if the schema is the one that this version expects."""
    return schema(database) is Schema.CURRENT
