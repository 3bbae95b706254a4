"""Open access is for this machine alone."""

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.domain.errors import BadRequest

_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


class LoopbackOnly:
    """Refuses requests for another host name, and those that a page of another origin sends.

    A page elsewhere could else reach the API through a name that resolves to this machine (DNS
    rebinding), or POST a form to it, which no browser asks leave for.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            origin = request.headers.get("origin")
            foreign = origin is not None and origin != f"http://{request.headers.get('host')}"
            if (request.url.hostname or "") not in _NAMES or foreign:
                error = BadRequest(
                    "this server answers only requests made to it as 127.0.0.1 or localhost, and "
                    "none from pages of other origins"
                )
                await problems.response(error)(scope, receive, send)
                return
        await self.app(scope, receive, send)
