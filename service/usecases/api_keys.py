"""Use cases: create and revoke API keys, and authenticate a caller by token."""

import hashlib
import hmac
import re
import secrets
from typing import NamedTuple

import structlog
from sqlmodel import Session

from service.domain.access import OPEN, Caller, KeyState, Role, is_loopback
from service.domain.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    RefusedToStart,
    Unauthorized,
)
from service.domain.ids import new_id
from service.settings import Settings
from service.store import keys, migrate, projects
from service.store.database import Database
from service.store.keys import Key

log = structlog.get_logger()

FIRST_KEY = "first-admin"
MAX_NAME_LENGTH = 100
MAX_EXPIRY_SECONDS = 3650 * 24 * 3600

# `ft_`, the part of the row's id after `key_`, 32 random bytes in base64url. The id part has no
# underscore, so that the parts can be separated whatever the secret contains.
_TOKEN = re.compile(r"ft_([0-9a-z]{26})_[A-Za-z0-9_-]{43}")
_NO_DIGEST = "0" * 64


class NewKey(NamedTuple):
    key: Key
    token: str
    """Not stored: it is shown once, now."""


def create(
    database: Database, name: str, role: Role, expires_in_seconds: float | None = None
) -> NewKey:
    """Create a key with a name that no key had before; the first one must be a permanent admin key.

    Runs and events name their author by the key's name alone, so a name is never reused. Raises
    InvalidRequest for the name or the expiry; Conflict for a name in use, and for a first key that
    would lock everybody out, now or when it expires.
    """
    _check(name, expires_in_seconds)
    with database.write() as session:
        projects.lock(session)
        if (existing := keys.find_by_name(session, name)) is not None:
            raise Conflict(
                f"the key {existing.row.id} ({existing.state}) has the name {name!r}, by which "
                f"runs and events refer to it: choose another name, such as {_alternative(name)!r}"
            )
        if not keys.has_any(session) and (role is not Role.ADMIN or expires_in_seconds is not None):
            raise Conflict(
                "this would be the first key, and from then on every call requires one: create an "
                "admin key without an expiry first"
            )
        key_id, token = _new_token()
        return NewKey(
            keys.create(session, key_id, name, role, _digest(token), expires_in_seconds), token
        )


def _alternative(name: str) -> str:
    return f"{name[: MAX_NAME_LENGTH - 2]}-2"


def migrate_with_first(database: Database) -> NewKey | None:
    """Migrate the database, and create an admin key if there never was a key.

    In one transaction: a server that waits for the schema finds the key, however many processes
    migrate at once.
    """
    new_key: NewKey | None = None

    def create_first(session: Session) -> None:
        nonlocal new_key
        new_key = None  # from an earlier attempt that was rolled back
        projects.lock(session)
        if not keys.has_any(session):
            key_id, token = _new_token()
            key = keys.create(session, key_id, FIRST_KEY, Role.ADMIN, _digest(token), None)
            new_key = NewKey(key, token)

    migrate.upgrade(database, then=create_first)
    return new_key


def revoke(database: Database, key_id: str) -> Key:
    """Revoke a key; revoking it again has no effect. Raises NotFound."""
    with database.write() as session:
        return keys.revoke(session, key_id)


def revoke_named(database: Database, id_or_name: str) -> Key:
    """Revoke the key of that id or name. Raises NotFound."""
    with database.read() as session:
        key = keys.find(session, id_or_name) or keys.find_by_name(session, id_or_name)
    if key is None:
        raise NotFound(
            f"there is no API key with the id or name {id_or_name!r}; `fairtune keys list` lists "
            "all keys"
        )
    return revoke(database, key.row.id)


def authenticate(database: Database, token: str | None, *, host: str) -> Caller:
    """Return the caller that sends `token` to a server that listens on `host`.

    Access is open only on loopback and as long as no key was ever created: revoking the last key,
    or its expiry, does not open access. Called for each request, so that a key is valid from its
    creation to its revocation. Raises Unauthorized, Unavailable.
    """
    match = _TOKEN.fullmatch(token or "")
    if match is None and not is_loopback(host):
        raise _refusal(token)
    with database.read() as session:
        if is_loopback(host) and not keys.has_any(session):
            return OPEN
        if token is None or match is None:
            raise _refusal(token)
        key = keys.find(session, f"key_{match[1]}")
    # The same work for an existing id and a missing one.
    digest = _NO_DIGEST if key is None else key.row.digest
    if not hmac.compare_digest(_digest(token), digest) or key is None:
        raise _refusal(token)
    if key.state is not KeyState.ACTIVE:
        raise Unauthorized(
            f"the API key {key.row.name!r} ({key.row.id}) is {key.state}: ask an admin of this "
            "server for a new one",
            token_sent=True,
        )
    return Caller(key.row.id, key.row.name, Role(key.row.role))


def is_let_in(database: Database, caller: Caller) -> bool:
    """Return True if a caller who was authenticated before still has access. Raises Unavailable."""
    with database.read() as session:
        if caller.key_id is None:
            return not keys.has_any(session)
        key = keys.find(session, caller.key_id)
    return key is not None and key.state is KeyState.ACTIVE


def note_use(database: Database, key_id: str) -> None:
    """Record that a key was used now. Raises Unavailable."""
    with database.write() as session:
        keys.record_use(session, key_id)


def check_guarded(database: Database, settings: Settings) -> None:
    """Refuse to start a server that is open to everybody. Raises RefusedToStart, Unavailable.

    To be called before the server listens. In production it refuses on loopback too: behind a proxy
    on the same machine, every request comes from there.
    """
    in_production = settings.environment == "production"
    may_be_open = is_loopback(settings.host) and not in_production
    with database.read() as session:
        is_open = may_be_open and not keys.has_any(session)
        is_usable = keys.has_active(session)
        is_managed = keys.has_active(session, Role.ADMIN)
    command = f"fairtune keys create NAME --role admin{settings.data_dir_option}"
    if not is_usable and not may_be_open:
        raise RefusedToStart(
            f"Refusing to listen on {settings.host}{' in production' if in_production else ''}: "
            f"there is no usable API key. Create one with `{command}` (with docker compose: "
            "`docker compose run --rm --no-deps api keys create NAME --role admin`)"
            + ("." if in_production else ", or listen on 127.0.0.1.")
        )
    if not is_managed and not is_open:
        log.warning("there is no usable admin key: nobody can manage API keys", remedy=command)


def _refusal(token: str | None) -> Unauthorized:
    if token is None:
        return Unauthorized("send an API key with the header `Authorization: Bearer ft_…`")
    return Unauthorized("this is not a valid API key of this server", token_sent=True)


def _new_token() -> tuple[str, str]:
    """Return a new key's id and its token."""
    key_id = new_id("key")
    return key_id, f"ft_{key_id.removeprefix('key_')}_{secrets.token_urlsafe(32)}"


def _digest(token: str) -> str:
    # Fast and without salt: a slow hash protects secrets that can be guessed, such as passwords;
    # 256 random bits cannot. For 112 bits of entropy and more, NIST SP 800-63B, 5.1.2.2 (look-up
    # secrets), requires no more than an approved hash function.
    return hashlib.sha256(token.encode()).hexdigest()


def _check(name: str, expires_in_seconds: float | None) -> None:
    if not name.strip() or name != name.strip():
        raise InvalidRequest.at("/name", "the name is blank, or has leading or trailing blanks")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidRequest.at("/name", f"a name has at most {MAX_NAME_LENGTH} characters")
    if not name.isprintable():
        raise InvalidRequest.at("/name", "the name contains unprintable characters")
    if expires_in_seconds is not None and not 0 < expires_in_seconds <= MAX_EXPIRY_SECONDS:
        raise InvalidRequest.at(
            "/expires_in_seconds", "must be more than 0 seconds and at most 3650 days"
        )
