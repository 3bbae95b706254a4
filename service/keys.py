"""Use cases on API keys: make, list, revoke, and tell by a token who calls."""

import hashlib
import hmac
import re
import secrets
from typing import NamedTuple

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
from service.store import keys, migrate
from service.store.database import Database
from service.store.keys import Key

FIRST_KEY = "first-admin"
MAX_NAME_LENGTH = 100
MAX_EXPIRY_SECONDS = 3650 * 24 * 3600

# `ft_`, what follows `key_` in the row's id, 32 random bytes in base64url. The id part holds no
# underscore, so that the parts are told apart whatever the secret holds.
_TOKEN = re.compile(r"ft_([0-9a-z]{26})_[A-Za-z0-9_-]{43}")
_NO_DIGEST = "0" * 64


class Made(NamedTuple):
    key: Key
    token: str
    """Kept nowhere: this is the only time that anybody sees it."""


def create(
    database: Database, name: str, role: Role, expires_in_seconds: float | None = None
) -> Made:
    """Raises InvalidRequest for the name or the time; Conflict where an active key has the name."""
    _check(name, expires_in_seconds)
    with database.write() as session:
        keys.lock(session)
        for known in keys.named(session, name):
            if known.state is KeyState.ACTIVE:
                raise Conflict(
                    f"the key {known.row.id} is active under the name {name!r}: revoke it first, "
                    "or choose another name"
                )
        key_id, token = _new_token()
        return Made(
            keys.create(session, key_id, name, role, _digest(token), expires_in_seconds), token
        )


def migrate_with_first(database: Database) -> Made | None:
    """Migrate, and make an admin's key where none was ever made.

    One transaction: a server that waits for the schema finds the key, however many processes
    migrate at once.
    """
    made: Made | None = None

    def create_first(session: Session) -> None:
        nonlocal made
        keys.lock(session)
        if not keys.any_made(session):
            key_id, token = _new_token()
            key = keys.create(session, key_id, FIRST_KEY, Role.ADMIN, _digest(token), None)
            made = Made(key, token)

    migrate.upgrade(database, then=create_first)
    return made


def revoke(database: Database, key_id: str) -> Key:
    """To revoke a key again is no error. Raises NotFound."""
    with database.write() as session:
        return keys.revoke(session, key_id)


def revoke_named(database: Database, id_or_name: str) -> Key:
    """Revoke by id, or by a name that only one key has. Raises NotFound, Conflict."""
    with database.read() as session:
        by_id = keys.find(session, id_or_name)
        found = keys.named(session, id_or_name) if by_id is None else [by_id]
    if not found:
        raise NotFound(
            f"there is no API key with the id or name {id_or_name!r}; `fairtune keys list` shows "
            "them"
        )
    standing = [key for key in found if key.state is not KeyState.REVOKED]
    if len(standing) > 1:
        ids = ", ".join(key.row.id for key in standing)
        raise Conflict(f"several keys have the name {id_or_name!r}: name one by its id ({ids})")
    return revoke(database, (standing or found)[0].row.id)


def authenticate(database: Database, token: str | None, *, host: str) -> Caller:
    """Who sends `token` to a server that listens on `host`.

    Access is open only on loopback and while no key was ever made: revoking the last key, or
    letting it expire, does not open the door. Asked for each request, so that a key counts from
    the moment when it is made to the one when it is revoked. Raises Unauthorized, Unavailable.
    """
    match = _TOKEN.fullmatch(token or "")
    if match is None and not is_loopback(host):
        raise _refusal(token)
    with database.read() as session:
        if is_loopback(host) and not keys.any_made(session):
            return OPEN
        if token is None or match is None:
            raise _refusal(token)
        found = keys.find(session, f"key_{match[1]}")
    # The same work for an id that there is and one that there is not.
    kept = _NO_DIGEST if found is None else found.row.digest
    if not hmac.compare_digest(_digest(token), kept) or found is None:
        raise _refusal(token)
    if found.state is not KeyState.ACTIVE:
        raise Unauthorized(
            f"the API key {found.row.name!r} ({found.row.id}) is {found.state}: ask an admin of "
            "this server for a new one",
            token_sent=True,
        )
    return Caller(found.row.id, found.row.name, Role(found.row.role))


def note_use(database: Database, key_id: str) -> None:
    """Raises Unavailable."""
    with database.write() as session:
        keys.note_use(session, key_id)


def check_guarded(database: Database, host: str, *, in_production: bool = False) -> None:
    """To be called before a server listens on `host`. Raises RefusedToStart, Unavailable.

    In production on loopback too: behind a proxy on the same machine everybody comes from there.
    """
    if is_loopback(host) and not in_production:
        return
    with database.read() as session:
        if keys.any_usable(session):
            return
    raise RefusedToStart(
        f"Refusing to listen on {host}{' in production' if in_production else ''}: there is no "
        "usable API key. Make one with `fairtune keys create NAME --role admin`"
        + ("." if in_production else ", or listen on 127.0.0.1.")
    )


def _refusal(token: str | None) -> Unauthorized:
    if token is None:
        return Unauthorized("send an API key with the header `Authorization: Bearer ft_…`")
    return Unauthorized("this is not a valid API key of this server", token_sent=True)


def _new_token() -> tuple[str, str]:
    """A new key's id, and its token."""
    key_id = new_id("key")
    return key_id, f"ft_{key_id.removeprefix('key_')}_{secrets.token_urlsafe(32)}"


def _digest(token: str) -> str:
    # Fast and without salt: a slow hash protects what can be guessed, as people's passwords can;
    # 256 random bits cannot. NIST SP 800-63B, 5.1.2.2 (look-up secrets), asks for an approved hash
    # function alone from 112 bits of entropy on.
    return hashlib.sha256(token.encode()).hexdigest()


def _check(name: str, expires_in_seconds: float | None) -> None:
    if not name.strip() or name != name.strip():
        raise InvalidRequest.at("/name", "the name is blank, or has blanks around it")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidRequest.at("/name", f"a name has at most {MAX_NAME_LENGTH} characters")
    if not name.isprintable():
        raise InvalidRequest.at("/name", "the name holds characters that nobody can read")
    if expires_in_seconds is not None and not 0 < expires_in_seconds <= MAX_EXPIRY_SECONDS:
        raise InvalidRequest.at(
            "/expires_in_seconds", "a key expires after at least a second and at most 3650 days"
        )
