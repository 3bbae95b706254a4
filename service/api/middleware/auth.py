"""Authentication and authorization, before anything else of a request is read."""

import asyncio
import hashlib
import re
import time
from collections.abc import Collection

import structlog
from fastapi.security import HTTPBearer
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import paths, problems
from service.api.middleware import local_only
from service.domain.access import OPEN, Caller, Role
from service.domain.errors import FairtuneError, Forbidden, Unauthorized, Unavailable
from service.store.database import Database
from service.store.keys import LAST_USE_SECONDS
from service.usecases import api_keys

log = structlog.get_logger()

ALWAYS_OPEN = paths.PAGES | {"/", "/openapi.json", paths.LIVENESS, paths.READINESS}
_ASSETS = "/static-offline-docs/"  # scripts and styles of /docs and /redoc
REMEMBERED_SECONDS = 600.0
"""How long an accepted key can read the metrics while the database is unreachable."""
_READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_READING_POSTS = re.compile(r"/v1/runs/[^/]+/evaluations/[^/]+/reports")
"""Paths whose POST stores nothing: it reads, and its options are in the body."""

NO_KEY = "send an API key with the header `Authorization: Bearer ft_…`"

bearer = HTTPBearer(
    scheme_name="ApiKey",
    bearerFormat="ft_…",
    description="An API key from `fairtune keys create NAME --role viewer|operator|admin`. A "
    "server that listens on loopback only and never had a key requires none.",
    auto_error=False,
)
"""Marks the calls that need a key in the OpenAPI document; `Authenticate` enforces it."""


def needed_role(method: str, path: str) -> Role | None:
    """Return the role that a call needs; None if it is open to everybody."""
    if method in ("GET", "HEAD") and (path in ALWAYS_OPEN or path.startswith(_ASSETS)):
        return None
    if path.startswith(paths.KEYS):
        return Role.ADMIN
    return Role.VIEWER if is_read(method, path) else Role.OPERATOR


def is_read(method: str, path: str) -> bool:
    """Return True if a call stores nothing."""
    return method in _READ_METHODS or (method == "POST" and bool(_READING_POSTS.fullmatch(path)))


def forbidden(needed: Role, caller: Caller) -> Forbidden:
    return Forbidden(
        f"this call needs the role {needed}; the key {caller.name!r} has the role {caller.role}"
    )


def caller_of(connection: HTTPConnection) -> Caller:
    caller: Caller = connection.state.caller
    return caller


def _token_of(connection: HTTPConnection) -> str | None:
    """Return the bearer token; None without an Authorization header. Raises Unauthorized."""
    values = connection.headers.getlist("authorization")
    if not values:
        return None
    scheme, _, token = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("send one header of the form `Authorization: Bearer ft_…`")
    return token.strip()


class Authenticate:
    """Answers 401 without a valid key and 403 if the key's role does not suffice.

    An ASGI middleware, because FastAPI reads a whole body, files included, before it runs a
    dependency; and so that routes are protected by default. It stores the caller in the request's
    state. `host` is the address that the server listens on; pages of `origins` may call it while
    access is open.
    """

    def __init__(
        self, app: ASGIApp, database: Database, host: str, origins: Collection[str] = ()
    ) -> None:
        self.app = app
        self.database = database
        self.host = host
        self.origins = origins
        self._recorded_uses: dict[str, float] = {}
        """Monotonic time at which this process last recorded a use, by key id."""
        self._scrapers: dict[bytes, tuple[Caller, float]] = {}
        """Callers accepted for the metrics with the monotonic time, by their key's digest. At most
        one per existing key: invalid keys and open access are not stored."""
        self._recording: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        needed = needed_role(scope["method"], path)
        if needed is None:
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        try:
            caller = await self._caller(connection, path)
            connection.state.caller = caller  # so that the log names a refused caller, too
            if caller.role < needed:
                raise forbidden(needed, caller)
        except FairtuneError as error:
            await problems.response(error)(scope, receive, send)
            return
        recording = self._record_use(caller)
        await self.app(scope, receive, send)
        if recording is not None:  # the answer has been sent
            await recording

    async def _caller(self, connection: HTTPConnection, path: str) -> Caller:
        """Raises Unauthorized, BadRequest, Unavailable."""
        caller = await run_in_threadpool(self._look_up, connection, path)
        if caller == OPEN:
            local_only.check_local(connection, self.origins)
        return caller

    def _look_up(self, connection: HTTPConnection, path: str) -> Caller:
        token = _token_of(connection)
        if path != paths.METRICS:
            return api_keys.authenticate(self.database, token, host=self.host)
        # Metrics matter most during an outage of the database: a recently accepted key works.
        digest = hashlib.sha256((token or "").encode()).digest()
        try:
            caller = api_keys.authenticate(self.database, token, host=self.host)
        except Unauthorized:
            self._scrapers.pop(digest, None)
            raise
        except Unavailable:
            scraper, since = self._scrapers.get(digest, (None, 0.0))
            if scraper is None or time.monotonic() - since > REMEMBERED_SECONDS:
                raise
            return scraper
        if caller.key_id is not None:
            self._scrapers[digest] = caller, time.monotonic()
        return caller

    def _record_use(self, caller: Caller) -> asyncio.Task[None] | None:
        """Start to record the use of the key, at most once a minute, alongside the request."""
        now = time.monotonic()
        key_id = caller.key_id
        if (
            key_id is None
            or now - self._recorded_uses.get(key_id, -LAST_USE_SECONDS) < LAST_USE_SECONDS
        ):
            return None
        # Before the outcome is known, so that a failing database is not tried at every request.
        self._recorded_uses[key_id] = now
        task = asyncio.create_task(run_in_threadpool(self._write_use, key_id))
        self._recording.add(task)  # the event loop holds a weak reference only
        task.add_done_callback(self._recording.discard)
        return task

    def _write_use(self, key_id: str) -> None:
        try:
            api_keys.note_use(self.database, key_id)
        except (FairtuneError, SQLAlchemyError) as error:
            log.warning("could not record the use of an API key", key_id=key_id, error=str(error))
