"""API keys: every query on them. Which are valid is decided by the database's clock."""

from typing import NamedTuple

from sqlalchemy import insert, or_, update
from sqlmodel import Session, col, select

from service.domain.access import KeyState, Role
from service.domain.errors import NotFound
from service.store.database import db_now
from service.store.tables import DEFAULT_PROJECT, ApiKey, Project

LAST_USE_SECONDS = 60
"""So much may last_used_at be behind: writing it at every request would cost more than it says."""


class Key(NamedTuple):
    row: ApiKey
    state: KeyState


_is_expired = col(ApiKey.expires_at) <= db_now()  # null where it never expires
_select = select(ApiKey, _is_expired).where(ApiKey.project_id == DEFAULT_PROJECT)


def _key(row: ApiKey, is_expired: bool | None) -> Key:
    if row.revoked_at is not None:
        return Key(row, KeyState.REVOKED)
    return Key(row, KeyState.EXPIRED if is_expired else KeyState.ACTIVE)


def lock(session: Session) -> None:
    """Make keys one at a time until the commit: what is asked for is compared with what is there.

    On SQLite every write transaction does so already. On PostgreSQL rows that refer to the project
    can still be inserted meanwhile.
    """
    statement = select(Project.id).where(Project.id == DEFAULT_PROJECT)
    session.exec(statement.with_for_update(key_share=True)).one()


def create(
    session: Session,
    key_id: str,
    name: str,
    role: Role,
    digest: str,
    expires_in_seconds: float | None,
) -> Key:
    session.execute(
        insert(ApiKey).values(
            id=key_id,
            project_id=DEFAULT_PROJECT,
            name=name,
            role=role.value,
            digest=digest,
            expires_at=None if expires_in_seconds is None else db_now(expires_in_seconds),
        )
    )
    return get(session, key_id)


def find(session: Session, key_id: str) -> Key | None:
    found = session.exec(_select.where(ApiKey.id == key_id)).one_or_none()
    return None if found is None else _key(*found)


def get(session: Session, key_id: str) -> Key:
    """Raises NotFound."""
    found = find(session, key_id)
    if found is None:
        raise NotFound(f"there is no API key {key_id!r}")
    return found


def named(session: Session, name: str) -> Key | None:
    """The key of this name, whatever its state: no two ever have the same."""
    found = session.exec(_select.where(ApiKey.name == name)).one_or_none()
    return None if found is None else _key(*found)


def page(session: Session, *, limit: int | None, after: str | None) -> tuple[list[Key], bool]:
    """Newest first, those older than the key `after`; and whether there are more."""
    statement = _select.order_by(col(ApiKey.id).desc())
    if after is not None:
        statement = statement.where(ApiKey.id < after)
    if limit is not None:
        statement = statement.limit(limit + 1)
    found = [_key(*row) for row in session.exec(statement)]
    return found[:limit], limit is not None and len(found) > limit


def revoke(session: Session, key_id: str) -> Key:
    """A key that was revoked before keeps the time of that. Raises NotFound."""
    session.execute(
        update(ApiKey)
        .where(
            col(ApiKey.id) == key_id,
            col(ApiKey.project_id) == DEFAULT_PROJECT,
            col(ApiKey.revoked_at).is_(None),
        )
        .values(revoked_at=db_now())
        .execution_options(synchronize_session=False)
    )
    session.expire_all()
    return get(session, key_id)


def any_made(session: Session) -> bool:
    """Whether there ever was a key: one that is revoked or expired counts."""
    return session.exec(select(ApiKey.id).limit(1)).first() is not None


def any_usable(session: Session, role: Role = Role.VIEWER) -> bool:
    """Whether a key that is active permits what `role` does."""
    statement = select(ApiKey.id).where(
        col(ApiKey.role).in_([one.value for one in Role if one >= role]),
        col(ApiKey.revoked_at).is_(None),
        or_(col(ApiKey.expires_at).is_(None), col(ApiKey.expires_at) > db_now()),
    )
    return session.exec(statement.limit(1)).first() is not None


def note_use(session: Session, key_id: str) -> None:
    """Set last_used_at, unless another process did so within the last minute."""
    session.execute(
        update(ApiKey)
        .where(
            col(ApiKey.id) == key_id,
            or_(
                col(ApiKey.last_used_at).is_(None),
                col(ApiKey.last_used_at) < db_now(-LAST_USE_SECONDS),
            ),
        )
        .values(last_used_at=db_now())
        .execution_options(synchronize_session=False)
    )
