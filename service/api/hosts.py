"""Open access is for this machine alone."""

from collections.abc import Collection

from starlette.requests import HTTPConnection

from service.domain.errors import BadRequest

_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


def check_local(connection: HTTPConnection, origins: Collection[str]) -> None:
    """Refuse a request for another host name, and one that a page of another origin sends.

    A page elsewhere could else reach the API through a name that resolves to this machine (DNS
    rebinding), or POST a form to it, which no browser asks leave for. Where keys are asked for
    neither works, since a browser adds no bearer token by itself; so this is for open access.
    `origins` are those whose pages may call. Raises BadRequest.
    """
    origin = connection.headers.get("origin")
    own = f"http://{connection.headers.get('host')}"
    foreign = origin is not None and origin != own and origin not in origins
    if (connection.url.hostname or "") not in _NAMES or foreign:
        raise BadRequest(
            "without API keys this server answers only requests made to it as 127.0.0.1 or "
            "localhost, and none from pages of other origins (FAIRTUNE_CORS_ORIGINS)"
        )
