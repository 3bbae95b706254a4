"""JSON bodies, read strictly: what another reader could understand otherwise is refused."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from service.datasets.lines import DECODER, DuplicateKeyError
from service.domain.errors import BadRequest


class JsonRoute(APIRoute):
    """A route whose JSON body names each key once, in UTF-8, nested no deeper than can be read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_Request(request.scope, request.receive))

        return handle_strictly


class _Request(Request):
    async def json(self) -> Any:
        """Raises JSONDecodeError, which FastAPI reports; and HTTPException, which it lets pass."""
        try:
            return DECODER.decode((await self.body()).decode("utf-8-sig"))
        except DuplicateKeyError as error:
            detail = f"the body {error}"
        except UnicodeDecodeError:
            detail = "the body is not UTF-8"
        except RecursionError:
            detail = "the body is nested too deeply"
        raise HTTPException(BadRequest.status, detail)
