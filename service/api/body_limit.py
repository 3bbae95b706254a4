"""A limit on the size of requests, held while they are read."""

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
        read = 0
        started = False
        too_large = PayloadTooLarge(
            f"the body is larger than {self.limit} bytes (FAIRTUNE_MAX_UPLOAD_BYTES)"
        )

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.limit:
                raise too_large
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if declared.isdigit() and int(declared) > self.limit:
                raise too_large
            await self.app(scope, limited, watched)
        except PayloadTooLarge as error:
            if started:
                raise
            await problems.response(error)(scope, receive, send)
