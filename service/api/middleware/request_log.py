"""Every request: its id, its line in the log, its place in the metrics."""

import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.api.responses.files import BrokenOff
from service.domain.errors import FairtuneError
from service.domain.ids import new_id
from service.observability import request_context
from service.ops.prometheus import OTHER, Monitoring

HEADER = "X-Request-ID"
# What is logged, stored and sent back must be harmless in all three places.
_SANE = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Asked for every few seconds, by machines.
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
_GONE = 499
"""nginx's status for a client that left before the answer began: no answer has it."""

log = structlog.get_logger()


class RequestLog:
    """The outermost of all that answers, so that every answer has an id.

    An error that nobody foresaw ends here: as one line with its traceback, and as a problem.
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
        with request_context.request(request_id):
            try:
                await self.app(scope, exchange.receive, exchange.send)
            except ClientDisconnect:
                exchange.disconnected = True
            except BrokenOff as error:  # the server ends the connection: what was said is not all
                log.error("a file could not be sent whole", why=str(error), route=_route(scope))  # noqa: TRY400 - it says it all
            except Exception:
                log.exception("unexpected error", route=_route(scope))
                if exchange.status is None:
                    detail = f"an unexpected error; the server's log tells more of {request_id}"
                    answer = problems.response(FairtuneError(detail))
                    await answer(scope, exchange.receive, exchange.send)
            finally:  # a server that stops cancels what is left of its streams
                self._note(scope, exchange)

    def _note(self, scope: Scope, exchange: "_Exchange") -> None:
        seconds = time.perf_counter() - exchange.began
        route, status = _route(scope), exchange.status or _GONE
        self.monitoring.answered(
            scope["method"], route, status, None if exchange.is_stream else seconds
        )
        say = log.debug if route in _QUIET else log.info
        say(
            "request",
            method=scope["method"],
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 1),
            **_known(scope, exchange),
        )


class _Exchange:
    """What passes between the server and the application for one request."""

    def __init__(self, request_id: str, receive: Receive, send: Send) -> None:
        self.began = time.perf_counter()
        self.status: int | None = None
        self.is_stream = False
        self.disconnected = False
        """Whether the client left before the end of the answer."""
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
    """The client's id where it sent one that is fit for use, else a new one."""
    sent = Headers(scope=scope).getlist(HEADER)
    return sent[0] if len(sent) == 1 and _SANE.fullmatch(sent[0]) else new_id("req")


def _route(scope: Scope) -> str:
    """The template of the route; paths that no route knows have one name in common."""
    path: str = getattr(scope.get("route"), "path", OTHER)
    return path


def _known(scope: Scope, exchange: _Exchange) -> dict[str, object]:
    """What only some requests have."""
    known: dict[str, object] = {}
    caller = scope.get("state", {}).get("caller")
    if caller is not None and caller.name is not None:
        known["key"] = caller.name
    run_id = (scope.get("path_params") or {}).get("run_id")
    if isinstance(run_id, str) and _SANE.fullmatch(run_id):
        known["run_id"] = run_id
    if exchange.disconnected:
        known["disconnected"] = True
    return known
