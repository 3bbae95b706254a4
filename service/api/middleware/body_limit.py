"""Limits on the size and the duration of a request's body, enforced while it is read."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.api.paths import UPLOADS
from service.domain.errors import BadRequest, PayloadTooLarge, RequestTimeout

TWO_LENGTHS = "send Content-Length or Transfer-Encoding, not both"
_CLOSE = (b"connection", b"close")


class BodyLimit:
    """Answers 413 to a body that is too large, and 408 to one that does not arrive in time.

    The limits apply when the body is read: a request without a key still gets its 401. If the
    answer precedes the end of the body, the connection is closed after it, since the remainder of
    the body would follow on it.
    """

    def __init__(
        self, app: ASGIApp, max_body_bytes: int, max_upload_bytes: int, timeout_seconds: float
    ) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.max_upload_bytes = max_upload_bytes
        self.timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        names = {name for name, _ in scope["headers"]}
        if {b"content-length", b"transfer-encoding"} <= names:
            # Two parsers may find different ends of such a body, and take the remainder for another
            # request: RFC 9112, section 6.1.
            answer = problems.response(BadRequest(TWO_LENGTHS))
            answer.headers["Connection"] = "close"
            await answer(scope, receive, send)
            return
        is_upload = _is_upload(scope)
        limit = self.max_upload_bytes if is_upload else self.max_body_bytes
        body = _Body(scope, receive, limit, self.timeout_seconds, is_upload=is_upload)

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and not body.is_complete:
                message["headers"] = [*message.get("headers", ()), _CLOSE]
            await send(message)

        await self.app(scope, body.receive, closing)


class _Body:
    """The body of a request. Raises HTTPException, which FastAPI, its reader, lets through."""

    def __init__(
        self, scope: Scope, receive: Receive, limit: int, seconds: float, *, is_upload: bool
    ) -> None:
        headers = dict(scope["headers"])
        self._is_upload = is_upload
        self._limit = limit
        declared = headers.get(b"content-length", b"0")
        self._declared = int(declared) if declared.isdigit() else 0
        self.is_complete = not self._declared and b"transfer-encoding" not in headers
        self._receive = receive
        self._read = 0
        self._seconds = seconds
        self._deadline: float | None = None

    async def receive(self) -> Message:
        if self.is_complete:  # the next message is the client's disconnect
            return await self._receive()
        if self._declared > self._limit:
            raise self._too_large()
        now = asyncio.get_running_loop().time()
        # The limit is for a whole small body, but for each part of an upload.
        if self._deadline is None or self._is_upload:
            self._deadline = now + self._seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            detail = too_slow(self._seconds, is_upload=self._is_upload)
            raise HTTPException(RequestTimeout.status, detail) from None
        self._read += len(message.get("body", b""))
        if self._read > self._limit:
            raise self._too_large()
        self.is_complete = not message.get("more_body", False)
        return message

    def _too_large(self) -> HTTPException:
        detail = too_large(self._limit, limit_setting(is_upload=self._is_upload))
        return HTTPException(PayloadTooLarge.status, detail)


def _is_upload(scope: Scope) -> bool:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    content_type: bytes = dict(scope["headers"]).get(b"content-type", b"").lower()
    return path in UPLOADS and content_type.startswith(b"multipart/form-data")


def limit_setting(*, is_upload: bool) -> str:
    """Return the name of the setting that limits the body."""
    return "max_upload_bytes" if is_upload else "max_body_bytes"


def too_large(limit: int, setting: str) -> str:
    return f"the body is larger than {limit} bytes (FAIRTUNE_{setting.upper()})"


def too_slow(seconds: float, *, is_upload: bool) -> str:
    event = "the upload paused for" if is_upload else "the body took"
    return f"{event} more than {seconds:g} s (FAIRTUNE_REQUEST_TIMEOUT_SECONDS)"
