"""API keys for tests: made by hand, sent, made old."""

from typing import Any

from sqlalchemy import update
from sqlmodel import col

from service.domain.access import Role
from service.store.database import Database, db_now
from service.store.tables import ApiKey
from service.usecases import api_keys


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def make_keys(database: Database) -> dict[Role, str]:
    """A token of each role; the keys are named after them. The first one must be an admin's."""
    return {role: api_keys.create(database, role.value, role).token for role in reversed(Role)}


def change(database: Database, name: str, **values: Any) -> None:
    with database.write() as session:
        session.execute(update(ApiKey).where(col(ApiKey.name) == name).values(**values))


def let_expire(database: Database, name: str) -> None:
    change(database, name, expires_at=db_now(-1))
