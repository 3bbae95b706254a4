"""Use cases on API keys: make, list, revoke, and tell by a token who calls."""

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
    """Make a key under a name that none had before, and the first one for an admin and for good.

    Runs and events name who acted by the key's name alone: it is never given to another. Raises
    InvalidRequest for the name or the time; Conflict for a name that was taken, and for a first key
    that would close the server to everybody, now or when it expires.
    """
    _check(name, expires_in_seconds)
    with database.write() as session:
        projects.lock(session)
        if (known := keys.find_by_name(session, name)) is not None:
            raise Conflict(
                f"the key {known.row.id} ({known.state}) has the name {name!r}, by which runs and "
                f"events name it: choose another name, such as {_another(name)!r}"
            )
        if not keys.has_any(session) and (role is not Role.ADMIN or expires_in_seconds is not None):
            raise Conflict(
                "this would be the first key, and from then on every call takes one: make an "
                "admin's first, without an expiry"
            )
        key_id, token = _new_token()
        return Made(
            keys.create(session, key_id, name, role, _digest(token), expires_in_seconds), token
        )


def _another(name: str) -> str:
    return f"{name[: MAX_NAME_LENGTH - 2]}-2"


def migrate_with_first(database: Database) -> Made | None:
    """Migrate, and make an admin's key where none was ever made.

    One transaction: a server that waits for the schema finds the key, however many processes
    migrate at once.
    """
    made: Made | None = None

    def create_first(session: Session) -> None:
        nonlocal made
        made = None  # of a try before, which was rolled back
        projects.lock(session)
        if not keys.has_any(session):
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
    """Raises NotFound."""
    with database.read() as session:
        found = keys.find(session, id_or_name) or keys.find_by_name(session, id_or_name)
    if found is None:
        raise NotFound(
            f"there is no API key with the id or name {id_or_name!r}; `fairtune keys list` shows "
            "them"
        )
    return revoke(database, found.row.id)


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
        if is_loopback(host) and not keys.has_any(session):
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


def is_let_in(database: Database, caller: Caller) -> bool:
    """Whether a caller who was let in would be let in again now. Raises Unavailable."""
    with database.read() as session:
        if caller.key_id is None:
            return not keys.has_any(session)
        found = keys.find(session, caller.key_id)
    return found is not None and found.state is KeyState.ACTIVE


def note_use(database: Database, key_id: str) -> None:
    """Raises Unavailable."""
    with database.write() as session:
        keys.record_use(session, key_id)


def check_guarded(database: Database, settings: Settings) -> None:
    """To be called before a server listens. Raises RefusedToStart, Unavailable.

    In production on loopback too: behind a proxy on the same machine everybody comes from there.
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
            f"there is no usable API key. Make one with `{command}` (with docker compose: "
            "`docker compose run --rm --no-deps api keys create NAME --role admin`)"
            + ("." if in_production else ", or listen on 127.0.0.1.")
        )
    if not is_managed and not is_open:
        log.warning("no admin among the usable API keys: nobody can manage them", remedy=command)


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
