"""Request ids, the request log, and request metrics."""

import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.api.paths import LIVENESS, METRICS, READINESS
from service.api.responses.files import BrokenOff
from service.domain.errors import FairtuneError
from service.domain.ids import new_id
from service.observability import request_context
from service.ops.prometheus import OTHER, Monitoring
from service.store.abandonment import reads_of

HEADER = "X-Request-ID"
# An id is logged, stored and sent back: it must be harmless in all three places.
_SAFE = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Polled every few seconds by machines.
_QUIET = frozenset({LIVENESS, READINESS, METRICS})
_GONE = 499
"""nginx's status for a client that disconnected before the answer; never sent."""

log = structlog.get_logger()


class RequestLog:
    """Outermost middleware that answers, so that every answer has an id.

    Unexpected errors end here: as a log line with its traceback, and as a problem.
    """

    def __init__(self, app: ASGIApp, monitoring: Monitoring) -> None:
        self.app = app
        self.monitoring = monitoring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        exchange = _Exchange(request_id, receive, send)
        # The server starts a request that was waiting in the context of the one before it on the
        # connection, whose client counts as gone.
        with request_context.request(request_id), reads_of(None):
            try:
                await self.app(scope, exchange.receive, exchange.send)
            except ClientDisconnect:
                exchange.disconnected = True
            except BrokenOff as error:  # the server aborts the connection: the answer is incomplete
                log.error("file transfer aborted", why=str(error), route=_route(scope))  # noqa: TRY400 - a traceback adds nothing
            except Exception:
                log.exception("unexpected error", route=_route(scope))
                if exchange.status is None:
                    detail = f"unexpected error; the server's log has details under {request_id}"
                    answer = problems.response(FairtuneError(detail))
                    await answer(scope, exchange.receive, exchange.send)
            finally:  # also when a stopping server cancels its streams
                self._record(scope, exchange)

    def _record(self, scope: Scope, exchange: "_Exchange") -> None:
        seconds = time.perf_counter() - exchange.began
        route, status = _route(scope), exchange.status or _GONE
        self.monitoring.answered(
            scope["method"], route, status, None if exchange.is_stream else seconds
        )
        write = log.debug if route in _QUIET else log.info
        write(
            "request",
            method=scope["method"],
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 1),
            **_optional_fields(scope, exchange),
        )


class _Exchange:
    """Messages between the server and the application for one request."""

    def __init__(self, request_id: str, receive: Receive, send: Send) -> None:
        self.began = time.perf_counter()
        self.status: int | None = None
        self.is_stream = False
        self.disconnected = False
        """True if the client disconnected before the end of the answer."""
        self._complete = False
        self._request_id = request_id
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._complete:
            self.disconnected = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers[HEADER] = self._request_id
            self.status = message["status"]
            self.is_stream = headers.get("content-type", "").startswith("text/event-stream")
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._complete = True
        await self._send(message)


def _request_id(scope: Scope) -> str:
    """Return the client's id if it sent a safe one, else a new one."""
    values = Headers(scope=scope).getlist(HEADER)
    return values[0] if len(values) == 1 and _SAFE.fullmatch(values[0]) else new_id("req")


def _route(scope: Scope) -> str:
    """Return the template of the route; paths without a route share one name."""
    path: str = getattr(scope.get("route"), "path", OTHER)
    return path


def _optional_fields(scope: Scope, exchange: _Exchange) -> dict[str, object]:
    """Return the fields that only some requests have."""
    fields: dict[str, object] = {}
    caller = scope.get("state", {}).get("caller")
    if caller is not None and caller.name is not None:
        fields["key"] = caller.name
    run_id = (scope.get("path_params") or {}).get("run_id")
    if isinstance(run_id, str) and _SAFE.fullmatch(run_id):
        fields["run_id"] = run_id
    if exchange.disconnected:
        fields["disconnected"] = True
    return fields
