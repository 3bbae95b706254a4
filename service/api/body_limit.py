"""A limit on the size of requests, held while they are read."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.domain.errors import PayloadTooLarge


class BodyLimit:
    """Refuses a body of more than `limit` bytes with 413, however its length is declared."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        detail = f"the body is larger than {self.limit} bytes (FAIRTUNE_MAX_UPLOAD_BYTES)"
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.limit:
            await problems.response(PayloadTooLarge(detail))(scope, receive, send)
            return
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.limit:
                # Of this kind, because FastAPI turns any other error while it reads into a 400.
                raise HTTPException(PayloadTooLarge.status, detail)
            return message

        await self.app(scope, limited, send)
