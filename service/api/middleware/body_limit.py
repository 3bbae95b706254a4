"""Limits on the size and the slowness of a request's body, held while it is read."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.domain.errors import PayloadTooLarge, RequestTimeout
from service.settings import Settings

UPLOAD_PATH = "/v1/datasets"
_CLOSE = (b"connection", b"close")


class BodyLimit:
    """Refuses a body that is too large with 413, and one that does not come with 408.

    Nothing is refused before somebody reads: a request without a key gets its 401. Whatever is
    answered before the end of the body has come, the connection is closed after the answer, since
    what follows on it would be the rest of that body.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(scope, receive, self.settings)

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and not body.is_complete:
                message["headers"] = [*message.get("headers", ()), _CLOSE]
            await send(message)

        await self.app(scope, body.receive, closing)


class _Body:
    """One request's. What it raises is of the kind that FastAPI, which reads it, lets through."""

    def __init__(self, scope: Scope, receive: Receive, settings: Settings) -> None:
        headers = dict(scope["headers"])
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        content_type = headers.get(b"content-type", b"").lower()
        self._is_upload = path == UPLOAD_PATH and content_type.startswith(b"multipart/form-data")
        self._limit = settings.max_upload_bytes if self._is_upload else settings.max_body_bytes
        self._setting = f"FAIRTUNE_MAX_{'UPLOAD' if self._is_upload else 'BODY'}_BYTES"
        declared = headers.get(b"content-length", b"0")
        self._declared = int(declared) if declared.isdigit() else 0
        self.is_complete = not self._declared and b"transfer-encoding" not in headers
        self._receive = receive
        self._read = 0
        self._seconds = settings.request_timeout_seconds
        self._deadline: float | None = None

    async def receive(self) -> Message:
        if self.is_complete:  # what comes now is that the client has left, whenever it does
            return await self._receive()
        if self._declared > self._limit:
            raise self._too_large()
        now = asyncio.get_running_loop().time()
        # A small body has so long in all; of an upload, each part.
        if self._deadline is None or self._is_upload:
            self._deadline = now + self._seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            what = "nothing of the upload came" if self._is_upload else "the body did not come"
            raise HTTPException(
                RequestTimeout.status,
                f"{what} within {self._seconds:g} s (FAIRTUNE_REQUEST_TIMEOUT_SECONDS)",
            ) from None
        self._read += len(message.get("body", b""))
        if self._read > self._limit:
            raise self._too_large()
        self.is_complete = not message.get("more_body", False)
        return message

    def _too_large(self) -> HTTPException:
        detail = f"the body is larger than {self._limit} bytes ({self._setting})"
        return HTTPException(PayloadTooLarge.status, detail)
