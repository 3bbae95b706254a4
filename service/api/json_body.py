"""Strict parsing of JSON bodies: ambiguous ones are refused."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from service.datasets.lines import DECODER, DuplicateKeyError
from service.domain.errors import BadRequest


class JsonRoute(APIRoute):
    """A route that refuses JSON with duplicate keys, not in UTF-8, or nested too deeply."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_Request(request.scope, request.receive))

        return handle_strictly


class _Request(Request):
    async def json(self) -> Any:
        """Parse the body. Raises JSONDecodeError, which FastAPI reports, and HTTPException."""
        try:
            return DECODER.decode((await self.body()).decode("utf-8-sig"))
        except DuplicateKeyError as error:
            detail = f"the body {error}"
        except UnicodeDecodeError:
            detail = "the body is not UTF-8"
        except RecursionError:
            detail = "the body is nested too deeply"
        raise HTTPException(BadRequest.status, detail)
