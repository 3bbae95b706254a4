"""Open access is for this machine alone."""

import re
from collections.abc import Collection

from starlette.requests import HTTPConnection

from service.domain.errors import BadRequest

# The header as it came. Starlette's URL has the server's own address in the place of a header that
# it cannot read, and "evil.com:x" would be this machine.
_OWN = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::([0-9]{1,5}))?", re.IGNORECASE)
_LARGEST_PORT = 65535
_PASSED_ON = ("forwarded", "x-forwarded-", "x-real-ip", "via")
"""What the names of the headers begin with that a proxy adds."""


def check_local(connection: HTTPConnection, origins: Collection[str]) -> None:
    """Refuse a request for another host name, one that a proxy passes on, and one that a page of
    another origin sends.

    A page elsewhere could else reach the API through a name that resolves to this machine (DNS
    rebinding), or POST a form to it, which no browser asks leave for; and behind a proxy everybody
    comes from this machine. Where keys are asked for none of it works, since a browser adds no
    bearer token by itself; so this is for open access. `origins` are those whose pages may call.
    Raises BadRequest.
    """
    headers = connection.headers
    if (by := next((name for name in headers if name.startswith(_PASSED_ON)), None)) is not None:
        raise BadRequest(
            f"a proxy has passed this request on ({by}), and without API keys this server answers "
            "only its own machine: make a key on it, `fairtune keys create NAME --role admin`"
        )
    hosts = headers.getlist("host")
    origin = headers.get("origin")
    own = f"http://{hosts[0]}" if hosts else None
    foreign = origin is not None and origin != own and origin not in origins
    if len(hosts) != 1 or not _is_own(hosts[0]) or foreign:
        raise BadRequest(
            "without API keys this server answers only requests made to it as 127.0.0.1 or "
            "localhost, and none from pages of other origins (FAIRTUNE_CORS_ORIGINS)"
        )


def _is_own(host: str) -> bool:
    """Whether a Host header (RFC 9110, section 7.2) names this machine, and nothing besides."""
    match = _OWN.fullmatch(host)
    return match is not None and int(match[1] or 0) <= _LARGEST_PORT
