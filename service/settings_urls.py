"""Validation of the URLs in the settings. No message shows a URL: it may contain a password."""

from urllib.parse import parse_qs, unquote, urlsplit

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

_DRIVERS = frozenset({"sqlite", "postgres", "postgresql", "postgresql+psycopg"})
_DATABASES = "use sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"


def check_database(url: str) -> None:
    """Check that `url` has a supported driver and a persistent database. Raises ValueError."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(_DATABASES) from None
    if parsed.drivername not in _DRIVERS:
        raise ValueError(_DATABASES)
    if parsed.drivername == "sqlite":
        path = parsed.database or ""
        # An in-memory database would exist once per process.
        if path in ("", ":memory:") or path.startswith("file:") or parsed.host or parsed.query:
            raise ValueError("write sqlite:///PATH with the path of a file, and nothing after it")


def check_store(url: str) -> None:
    """Check that `url` names a directory, or a bucket with at most a prefix. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return
    if parts.scheme != "s3" or not parts.netloc:
        raise ValueError("use file:///PATH or s3://BUCKET/PREFIX")
    if "@" in parts.netloc or ":" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "write only s3://BUCKET/PREFIX: the endpoint and the credentials come from "
            "AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    path = unquote(parts.path).strip("/")
    if path and any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"{path!r} is not a prefix: write names separated by single slashes")


def unambiguous(url: str) -> str:
    """Return `url`. Raises ValueError if a password would be parsed as a part of the address.

    The end of a password with an unescaped @ would appear in messages as an unknown host name.
    """
    parts = urlsplit(url)
    if parts.netloc.count("@") > 1:
        raise ValueError("write %40 for an @ in the password")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(
            "the port is not a number; write %3A for a : and %2F for a / in the password"
        ) from None
    return url


def passwords_in(url: str) -> list[str]:
    """Return the passwords in a URL of a database or a broker."""
    parts = urlsplit(url)
    return [unquote(parts.password or ""), *parse_qs(parts.query).get("password", [])]


def check_origin(origin: str) -> None:
    """Check that browsers send `origin` in this form (RFC 6454, section 6.2). Raises ValueError."""
    if "*" in origin:
        raise ValueError(
            "list each origin: with * any page in any browser that reaches the server could use it"
        )
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{origin!r} is not an origin: write https://HOST or https://HOST:PORT")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    port = "" if parts.port in (None, default) else f":{parts.port}"
    normalized = f"{parts.scheme}://{host.encode('idna').decode()}{port}"
    if origin != normalized:
        raise ValueError(f"no browser sends the origin {origin!r}: write {normalized!r}")
