"""Open access, without API keys, is limited to this machine."""

import re
from collections.abc import Collection

from starlette.requests import HTTPConnection

from service.domain.errors import BadRequest

# Matches the header itself: Starlette's URL replaces an unparsable header by the server's own
# address, so that "evil.com:x" would count as this machine.
_OWN = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::([0-9]{1,5}))?", re.IGNORECASE)
_LARGEST_PORT = 65535
_PROXY_HEADERS = ("forwarded", "x-forwarded-", "x-real-ip", "via")
"""Prefixes of the headers that a proxy adds."""


def check_local(connection: HTTPConnection, origins: Collection[str]) -> None:
    """Refuse a request for another host name, through a proxy, or from a page of another origin.

    Otherwise a page elsewhere could reach the API through a name that resolves to this machine (DNS
    rebinding), or POST a form to it, for which browsers send no preflight request; and behind a
    proxy every client appears to be this machine. With keys none of it works, since a browser adds
    no bearer token by itself; so this applies to open access only. Pages of `origins` may call.
    Raises BadRequest.
    """
    headers = connection.headers
    header = next((name for name in headers if name.startswith(_PROXY_HEADERS)), None)
    if header is not None:
        raise proxied(header)
    hosts = headers.getlist("host")
    origin = headers.get("origin")
    own = f"http://{hosts[0]}" if hosts else None
    foreign = origin is not None and origin != own and origin not in origins
    if len(hosts) != 1 or not _is_own(hosts[0]) or foreign:
        raise BadRequest(
            "without API keys this server accepts only requests to 127.0.0.1 or localhost, and "
            "none from pages of other origins (FAIRTUNE_CORS_ORIGINS)"
        )


def proxied(header: str) -> BadRequest:
    return BadRequest(
        f"the request came through a proxy ({header}), and without API keys this server accepts "
        "requests from its own machine only: create a key there with `fairtune keys create NAME "
        "--role admin`"
    )


def _is_own(host: str) -> bool:
    """Return True if a Host header (RFC 9110, section 7.2) names this machine and nothing else."""
    match = _OWN.fullmatch(host)
    return match is not None and int(match[1] or 0) <= _LARGEST_PORT
