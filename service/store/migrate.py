"""Bringing a database to the schema of this version."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

import migrations
from service.store.database import Database

# Any number will do; two migrating processes must use the same one.
_LOCK = 5_226_911_407


def config() -> Config:
    """Alembic's configuration for the migrations that were installed with this version."""
    made = Config()
    made.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return made


def upgrade(database: Database, revision: str = "head") -> None:
    """Migrate to `revision`. Several processes may call it at once: one works, the others wait."""
    with database.write() as session:
        connection = session.connection()
        if not database.is_sqlite:  # on SQLite the write transaction itself is the lock
            connection.execute(text("SET LOCAL lock_timeout = 0"))  # another migrates: wait
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        made = config()
        made.attributes["connection"] = connection
        command.upgrade(made, revision)


def downgrade(database: Database, revision: str) -> None:
    with database.write() as session:
        made = config()
        made.attributes["connection"] = session.connection()
        command.downgrade(made, revision)


def is_current(database: Database) -> bool:
    """Whether the schema is the one that this version expects."""
    with database.read() as session:
        current = MigrationContext.configure(session.connection()).get_current_heads()
    return set(current) == set(ScriptDirectory.from_config(config()).get_heads())
