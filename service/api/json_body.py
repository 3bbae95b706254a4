"""Strict parsing of JSON bodies: ambiguous ones are refused."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from service.datasets.lines import DECODER, decoding_flaw
from service.domain.decoding import NotTextError, encoding_of, text_of
from service.domain.errors import BadRequest
from service.domain.json_reasons import json_reason
from service.domain.storable import check_storable


class JsonRoute(APIRoute):
    """A route that refuses JSON with duplicate keys, not in UTF-8, or nested too deeply."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_Request(request.scope, request.receive))

        return handle_strictly


def check_content_encoding(request: Request) -> None:
    """Raise HTTPException for a compressed body, which would be parsed as it is."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        detail = f"Content-Encoding {encoding} is not supported; send the body uncompressed"
        raise HTTPException(BadRequest.status, detail)


class _Request(Request):
    async def json(self) -> Any:
        """Parse the body. Raises HTTPException and InvalidRequest."""
        check_content_encoding(self)
        body = await self.body()
        # RFC 8259 knows UTF-8 alone, and another parser on the way could read UTF-16 differently.
        if (encoding := encoding_of(body)).name != "utf-8":
            detail = f"the body is in {encoding.label}; send JSON in UTF-8"
            raise HTTPException(BadRequest.status, detail)
        try:
            value = DECODER.decode(text_of(body).rstrip())
            if b"\\u" in body:  # JSON can write what is not text as an escape alone
                check_storable(value)
        except NotTextError as error:
            detail = f"the body {error}"
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            detail = f"the body is not JSON: {json_reason(error)} ({where})"
        except (ValueError, RecursionError) as error:
            detail = f"the body {decoding_flaw(error).detail}"
        else:
            return value
        raise HTTPException(BadRequest.status, detail)
