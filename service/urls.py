"""What the URLs among the settings must be like. No message shows a URL: it may hold a password."""

from urllib.parse import parse_qs, unquote, urlsplit


def unambiguous(url: str) -> str:
    """`url` itself. Raises ValueError where a password would be taken for a part of the address.

    The end of one with an unescaped @ would be shown to everybody as the name of an unknown host.
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
    """Where a database's or a broker's URL can hold one."""
    parts = urlsplit(url)
    return [unquote(parts.password or ""), *parse_qs(parts.query).get("password", [])]


def check_origin(origin: str) -> None:
    """Raises ValueError unless `origin` is one as browsers send it (RFC 6454, section 6.2)."""
    if "*" in origin:
        raise ValueError(
            "name each origin: with * any page, in any browser that reaches the server, could use "
            "it"
        )
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{origin!r} is no origin: write https://HOST or https://HOST:PORT")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    port = "" if parts.port in (None, default) else f":{parts.port}"
    sent = f"{parts.scheme}://{host.encode('idna').decode()}{port}"
    if origin != sent:
        raise ValueError(f"no browser sends the origin {origin!r}: write {sent!r}")
