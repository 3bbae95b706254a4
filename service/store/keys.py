"""API keys: every query on them. The database's clock decides which are valid."""

from typing import NamedTuple

from sqlalchemy import insert, or_, update
from sqlmodel import Session, col, select

from service.domain.access import KeyState, Role
from service.domain.errors import NotFound
from service.store.database import db_now
from service.store.tables import DEFAULT_PROJECT, ApiKey

LAST_USE_SECONDS = 60
"""Precision of last_used_at: writing it at every request would be too expensive."""


class Key(NamedTuple):
    row: ApiKey
    state: KeyState


_is_expired = col(ApiKey.expires_at) <= db_now()  # null where it never expires
_select = select(ApiKey, _is_expired).where(ApiKey.project_id == DEFAULT_PROJECT)


def _key(row: ApiKey, is_expired: bool | None) -> Key:
    if row.revoked_at is not None:
        return Key(row, KeyState.REVOKED)
    return Key(row, KeyState.EXPIRED if is_expired else KeyState.ACTIVE)


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
    row = session.exec(_select.where(ApiKey.id == key_id)).one_or_none()
    return None if row is None else _key(*row)


def get(session: Session, key_id: str) -> Key:
    """Raises NotFound."""
    key = find(session, key_id)
    if key is None:
        raise NotFound(f"there is no API key {key_id!r}")
    return key


def find_by_name(session: Session, name: str) -> Key | None:
    """Return the key of this name in any state: names are never reused."""
    row = session.exec(_select.where(ApiKey.name == name)).one_or_none()
    return None if row is None else _key(*row)


def page(session: Session, *, limit: int | None, after: str | None) -> tuple[list[Key], bool]:
    """Return keys older than `after`, newest first, and True if there are more."""
    statement = _select.order_by(col(ApiKey.id).desc())
    if after is not None:
        statement = statement.where(ApiKey.id < after)
    if limit is not None:
        statement = statement.limit(limit + 1)
    keys = [_key(*row) for row in session.exec(statement)]
    return keys[:limit], limit is not None and len(keys) > limit


def revoke(session: Session, key_id: str) -> Key:
    """Revoke a key; a revoked one keeps its revocation time. Raises NotFound."""
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


def has_any(session: Session) -> bool:
    """Return True if there is a key, revoked and expired ones included."""
    return session.exec(select(ApiKey.id).limit(1)).first() is not None


def has_active(session: Session, role: Role = Role.VIEWER) -> bool:
    """Return True if an active key has at least the permissions of `role`."""
    statement = select(ApiKey.id).where(
        col(ApiKey.role).in_([granted.value for granted in Role if granted >= role]),
        col(ApiKey.revoked_at).is_(None),
        or_(col(ApiKey.expires_at).is_(None), col(ApiKey.expires_at) > db_now()),
    )
    return session.exec(statement.limit(1)).first() is not None


def record_use(session: Session, key_id: str) -> None:
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
