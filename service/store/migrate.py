"""Bringing a database to the schema of this version."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlmodel import Session

import migrations
from service.store.database import Database

# Any number will do; two migrating processes must use the same one.
_LOCK = 5_226_911_407


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

    `then` belongs to the same transaction: nobody sees the schema without what it does.
    """
    with database.write() as session:
        connection = session.connection()
        if not database.is_sqlite:  # on SQLite the write transaction itself is the lock
            connection.execute(text("SET LOCAL lock_timeout = 0"))  # another migrates: wait
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        made = config()
        made.attributes["connection"] = connection
        command.upgrade(made, revision)
        then(session)


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
