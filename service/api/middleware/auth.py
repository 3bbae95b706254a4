"""Who calls, and whether they may: decided before anything else of a request is read."""

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

from service.api import problems
from service.api.middleware import local_only
from service.domain.access import OPEN, Caller, Role
from service.domain.errors import FairtuneError, Forbidden, Unauthorized, Unavailable
from service.store.database import Database
from service.store.keys import LAST_USE_SECONDS
from service.usecases import api_keys

log = structlog.get_logger()

ALWAYS_OPEN = frozenset({"/", "/docs", "/redoc", "/openapi.json", "/healthz", "/readyz"})
_ASSETS = "/static-offline-docs/"  # what /docs and /redoc are drawn with
_KEYS = "/v1/keys"
_METRICS = "/metrics"
REMEMBERED_SECONDS = 600.0
"""So long a key reads the metrics without the database that would know of its revocation."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_ONLY_ASKS = re.compile(r"/v1/runs/[^/]+/evaluations/[^/]+/reports")
"""What a POST to it makes is kept nowhere: it reads, and has a body to say what."""

bearer = HTTPBearer(
    scheme_name="ApiKey",
    bearerFormat="ft_…",
    description="A key made with `fairtune keys create NAME --role viewer|operator|admin`. Not "
    "asked for by a server that listens on loopback alone and never had a key.",
    auto_error=False,
)
"""Says in the OpenAPI document which calls need a key. `Authenticate` is what asks for it."""


def needed_role(method: str, path: str) -> Role | None:
    """The role that a call needs; None where everybody may. What no rule names needs one too."""
    if method in ("GET", "HEAD") and (path in ALWAYS_OPEN or path.startswith(_ASSETS)):
        return None
    if path.startswith(_KEYS):
        return Role.ADMIN
    if method == "POST" and _ONLY_ASKS.fullmatch(path):
        return Role.VIEWER
    return Role.VIEWER if method in _READING else Role.OPERATOR


def caller_of(connection: HTTPConnection) -> Caller:
    caller: Caller = connection.state.caller
    return caller


def _token_of(connection: HTTPConnection) -> str | None:
    """What the Authorization header holds; None without one. Raises Unauthorized."""
    sent = connection.headers.getlist("authorization")
    if not sent:
        return None
    scheme, _, token = sent[0].partition(" ")
    if len(sent) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("send one header of the form `Authorization: Bearer ft_…`")
    return token.strip()


class Authenticate:
    """Refuses a request of nobody known with 401 and one that the key's role forbids with 403.

    An ASGI middleware, because FastAPI reads a whole body, files included, before it looks at a
    dependency; and so that a route which nobody thought about is closed. The caller is left in
    the request's state. `host` is what the server listens on; `origins` are those whose pages may
    call it while access is open.
    """

    def __init__(
        self, app: ASGIApp, database: Database, host: str, origins: Collection[str] = ()
    ) -> None:
        self.app = app
        self.database = database
        self.host = host
        self.origins = origins
        self._noted: dict[str, float] = {}
        """Key ids and when this process last noted their use (monotonic seconds)."""
        self._scrapers: dict[bytes, tuple[Caller, float]] = {}
        """Keys that were let in to the metrics, and when (monotonic seconds), by their digest. As
        many as there are keys at the most: what is no key, and open access, are not remembered."""
        self._noting: set[asyncio.Task[None]] = set()

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
            connection.state.caller = caller  # the log names a caller that is refused, too
            if caller.role < needed:
                raise Forbidden(
                    f"this call needs the role {needed}; the key {caller.name!r} has the role "
                    f"{caller.role}"
                )
        except FairtuneError as error:
            await problems.response(error)(scope, receive, send)
            return
        noting = self._note_use(caller)
        await self.app(scope, receive, send)
        if noting is not None:  # the answer has been sent
            await noting

    async def _caller(self, connection: HTTPConnection, path: str) -> Caller:
        """Raises Unauthorized, BadRequest, Unavailable."""
        caller = await run_in_threadpool(self._look_up, connection, path)
        if caller == OPEN:
            local_only.check_local(connection, self.origins)
        return caller

    def _look_up(self, connection: HTTPConnection, path: str) -> Caller:
        token = _token_of(connection)
        if path != _METRICS:
            return api_keys.authenticate(self.database, token, host=self.host)
        # Metrics say most while the database is away: a key that was let in lately still is.
        digest = hashlib.sha256((token or "").encode()).digest()
        try:
            caller = api_keys.authenticate(self.database, token, host=self.host)
        except Unauthorized:
            self._scrapers.pop(digest, None)
            raise
        except Unavailable:
            known, since = self._scrapers.get(digest, (None, 0.0))
            if known is None or time.monotonic() - since > REMEMBERED_SECONDS:
                raise
            return known
        if caller.key_id is not None:
            self._scrapers[digest] = caller, time.monotonic()
        return caller

    def _note_use(self, caller: Caller) -> asyncio.Task[None] | None:
        """Begin to write that the key was used; once a minute, beside the request."""
        now = time.monotonic()
        key_id = caller.key_id
        if key_id is None or now - self._noted.get(key_id, -LAST_USE_SECONDS) < LAST_USE_SECONDS:
            return None
        # Before the outcome is known: a database that takes no writes is not asked every time.
        self._noted[key_id] = now
        task = asyncio.create_task(run_in_threadpool(self._write_use, key_id))
        self._noting.add(task)  # the event loop alone would not keep it
        task.add_done_callback(self._noting.discard)
        return task

    def _write_use(self, key_id: str) -> None:
        try:
            api_keys.note_use(self.database, key_id)
        except (FairtuneError, SQLAlchemyError) as error:
            log.warning("use of an API key not noted", key_id=key_id, error=str(error))
