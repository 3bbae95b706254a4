"""Ends the reads of a request whose client has disconnected."""

import asyncio

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.middleware.auth import is_read
from service.store.abandonment import Abandoned, Client, reads_of

_RETRY_SECONDS = 0.2


class AbandonedReads:
    """Frees the turn, the thread and the connection of a read that nobody waits for.

    Otherwise clients that give up and repeat their requests would occupy all of them. Writes are
    carried out to their end.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_read(scope["method"], scope["path"]):
            await self.app(scope, receive, send)
            return
        client = Client()
        watch = _Watch(receive, client)
        headers = Headers(scope=scope)
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            watch.begin()
        try:
            with reads_of(client):
                await self.app(scope, watch.receive, send)
        except Abandoned:
            raise ClientDisconnect from None
        finally:
            await watch.end()


class _Watch:
    """Waits for the client's disconnect once the request is complete."""

    def __init__(self, receive: Receive, client: Client) -> None:
        self._receive = receive
        self._client = client
        self._task: asyncio.Task[None] | None = None
        self._empty_body: Message | None = None
        self._is_gone = asyncio.Event()

    def begin(self) -> None:
        """Watch a request without a body, of which the application may read nothing."""
        self._empty_body = {"type": "http.request", "body": b"", "more_body": False}
        self._task = asyncio.create_task(self._wait())

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def receive(self) -> Message:
        if self._empty_body is not None:
            message, self._empty_body = self._empty_body, None
            return message
        if self._task is not None:
            await self._is_gone.wait()
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._task = asyncio.create_task(self._wait())
        return message

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._client.is_gone = True
        self._is_gone.set()
        while self._client.is_reading:
            # Not among the threads for requests: all of them may be reading.
            await asyncio.to_thread(self._client.disconnect)
            await asyncio.sleep(_RETRY_SECONDS)
