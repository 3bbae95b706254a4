"""Choice of the response format: ?format= if present, else the Accept header."""

from collections.abc import Mapping, Sequence

from fastapi import Request

from service.domain.errors import NotAcceptable

JSON, HTML, CSV = "application/json", "text/html", "text/csv"
MEDIA_TYPES = {"json": JSON, "html": HTML, "csv": CSV}
"""Media types by the value of ?format=."""


def negotiate(request: Request, format_parameter: str | None, offered: Sequence[str]) -> str:
    """Return the format to answer in, one of `offered` (names of MEDIA_TYPES, the default first).

    Raises NotAcceptable if the Accept header accepts none of them.
    """
    if format_parameter is not None:
        return format_parameter
    by_type = {MEDIA_TYPES[name]: name for name in offered}
    accept = ",".join(request.headers.getlist("accept"))
    media_type = preferred(accept, list(by_type))
    if media_type is None:
        raise not_acceptable(offered)
    return by_type[media_type]


def not_acceptable(offered: Sequence[str]) -> NotAcceptable:
    types = ", ".join(MEDIA_TYPES[name] for name in offered)
    return NotAcceptable(
        f"the Accept header accepts none of the available types {types}; or set "
        f"?format={offered[0]}"
    )


def preferred(accept: str, offered: Sequence[str]) -> str | None:
    """Return the media type of `offered` that an Accept header prefers; None if it accepts none.

    RFC 9110, section 12.5.1: the most specific range that matches a type gives its quality, and 0
    excludes it. Among types of the same quality the more specifically named one wins, then the
    earlier one of `offered`. Parameters other than q are ignored; an empty header accepts
    everything.
    """
    ranges = _ranges(accept)
    if not ranges:
        return offered[0]
    best: tuple[float, int] = (0.0, 0)
    best_type = None
    for kind in offered:
        quality, specificity = _quality(kind, ranges)
        if quality > 0 and (quality, specificity) > best:
            best, best_type = (quality, specificity), kind
    return best_type


def _ranges(accept: str) -> dict[str, float]:
    """Return the quality of each media range, in lower case; an unreadable quality counts as 0."""
    qualities: dict[str, float] = {}
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if not media:
            continue
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                quality = _number(value.strip())
        qualities[media] = max(quality, qualities.get(media, 0.0))
    return qualities


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0


def _quality(kind: str, ranges: Mapping[str, float]) -> tuple[float, int]:
    """Return the quality of a media type and the specificity of its range (2: itself, 0: */*)."""
    any_subtype = f"{kind.partition('/')[0]}/*"
    for specificity, media in ((2, kind), (1, any_subtype), (0, "*/*")):
        if media in ranges:
            return ranges[media], specificity
    return 0.0, 0
