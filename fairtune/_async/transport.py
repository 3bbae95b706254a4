"""Requests with retries."""

from collections.abc import Mapping
from typing import IO, Any

import anyio
import httpx

from fairtune import _protocol as protocol
from fairtune.errors import (
    FairtuneError,
    InvalidResponse,
    NotFound,
    ServerUnreachable,
    problem_error,
)

_ATTEMPTS = 6


class AsyncTransport:
    """Sends requests to one server. Raises the errors of fairtune.errors."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self.http = http
        self.url = url

    async def get(self, path: str, **params: Any) -> Any:
        """Return the JSON of a resource."""
        return _json(await self.request("GET", path, params=params))

    async def text(self, path: str, accept: str = "*/*", **params: Any) -> str:
        """Return a resource as text."""
        response = await self.request("GET", path, params=params, headers={"Accept": accept})
        return response.text

    async def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        creates: bool = False,
        **params: Any,
    ) -> Any:
        """Return the JSON of the answer; `creates` sends an Idempotency-Key."""
        headers = protocol.new_idempotency_key() if creates else {}
        content = None if body is None else dict(body)
        return _json(await self.request("POST", path, json=content, params=params, headers=headers))

    async def delete(self, path: str, **params: Any) -> httpx.Response:
        """Delete a resource; it may be gone already if an earlier answer was lost."""
        return await self.request("DELETE", path, params=params)

    async def upload(
        self,
        path: str,
        fields: Mapping[str, str],
        files: Mapping[str, tuple[str, IO[bytes] | bytes]],
        **params: Any,
    ) -> Any:
        """Send a multipart form that creates a resource; return the JSON of the answer."""
        response = await self.request(
            "POST",
            path,
            data=dict(fields),
            files=dict(files),
            params=params,
            headers=protocol.new_idempotency_key(),
            timeout=protocol.UPLOAD_TIMEOUT,
        )
        return _json(response)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        can_repeat: bool = True,
        **options: Any,
    ) -> httpx.Response:
        """Return a successful answer, read; failures that may pass are retried for some seconds."""
        was_sent = False
        for attempt in range(_ATTEMPTS):
            is_last = attempt == _ATTEMPTS - 1 or not can_repeat
            _rewind(options.get("files"))
            try:
                response = await self.http.request(
                    method, path, params=protocol.without_none(params or {}), **options
                )
            except httpx.TransportError as error:
                # Without a connection nothing was sent, and nobody has to wait for a retry to learn
                # that the address is wrong.
                if is_last or isinstance(error, httpx.ConnectError | httpx.UnsupportedProtocol):
                    raise ServerUnreachable(self.url, error) from error
                was_sent = True
                await anyio.sleep(protocol.delay_seconds(attempt))
                continue
            if response.is_success or response.status_code == httpx.codes.NOT_MODIFIED:
                return response
            if is_last or not protocol.may_succeed_later(response.status_code):
                error_of_answer = problem_error(response)
                if was_sent and method == "DELETE" and isinstance(error_of_answer, NotFound):
                    return response
                raise error_of_answer
            await anyio.sleep(protocol.delay_seconds(attempt, response))
        raise AssertionError("the last attempt returns or raises")

    async def check(self, response: httpx.Response) -> None:
        """Raise the error of a streamed answer that is not successful."""
        if not response.is_success:
            await response.aread()
            raise problem_error(response)

    def unreachable(self, error: httpx.TransportError) -> FairtuneError:
        return ServerUnreachable(self.url, error)


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise InvalidResponse(f"{response.url} answered with no JSON: {error}") from None


def _rewind(files: Mapping[str, tuple[str, IO[bytes] | bytes]] | None) -> None:
    for _, content in (files or {}).values():
        if not isinstance(content, bytes) and content.seekable():
            content.seek(0)
