"""Bringing a database to the schema of this version."""

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
# While a table waits to be altered, whoever reads it waits too, behind the one transaction (a
# pg_dump, say) that holds it. So the wait is given up soon, and begun again after a pause for them.
_TABLE_WAIT_MS = 5_000
_PAUSE_SECONDS = 2.0
_TRIES = 24
_LOCK_NOT_AVAILABLE = "55P03"


def config() -> Config:
    """Alembic's configuration for the migrations that were installed with this version."""
    made = Config()
    made.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return made


def upgrade(
    database: Database,
    revision: str = "head",
    *,
    then: Callable[[Session], None] = lambda _: None,
) -> None:
    """Migrate to `revision`. Several processes may call it at once: one works, the others wait.

    `then` belongs to the same transaction: nobody sees the schema without what it does. It is
    called anew in each try. Raises Unavailable, also where a table stays held for minutes.
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
                "waiting for a table that another transaction holds",
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
        made = config()
        made.attributes["connection"] = connection
        command.upgrade(made, revision)
        then(session)


def _open_transactions(database: Database) -> list[str]:
    """PostgreSQL's sessions that are in one, the longest first: one of them holds the table."""
    with database.read() as session:
        found = session.connection().execute(
            text(
                "SELECT pid, application_name, extract(epoch FROM now() - xact_start)::int "
                "FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND xact_start IS NOT NULL ORDER BY xact_start LIMIT 5"
            )
        )
        return [f"pid {pid} {name or '(no name)'}, for {age} s" for pid, name, age in found]


def downgrade(database: Database, revision: str) -> None:
    with database.write() as session:
        made = config()
        made.attributes["connection"] = session.connection()
        command.downgrade(made, revision)


class Schema(StrEnum):
    """How a database's schema stands to this version's."""

    CURRENT = "current"
    BEHIND = "behind"
    """Empty, or an older version's: `upgrade` brings it here."""
    AHEAD = "ahead"
    """It has a revision that this version does not know: a newer one has migrated it."""


def schema(database: Database) -> Schema:
    """Raises Unavailable."""
    with database.read() as session:
        found = set(MigrationContext.configure(session.connection()).get_current_heads())
    script = ScriptDirectory.from_config(config())
    if found == set(script.get_heads()):
        return Schema.CURRENT
    known = {revision.revision for revision in script.walk_revisions()}
    return Schema.BEHIND if found <= known else Schema.AHEAD


def is_current(database: Database) -> bool:
    """Whether the schema is the one that this version expects."""
    return schema(database) is Schema.CURRENT
