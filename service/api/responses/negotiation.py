"""Which form of an answer is wanted: ?format= says it, else the Accept header."""

from collections.abc import Mapping, Sequence

from fastapi import Request

from service.domain.errors import NotAcceptable

JSON, HTML, CSV = "application/json", "text/html", "text/csv"
MEDIA_TYPES = {"json": JSON, "html": HTML, "csv": CSV}
"""What ?format= takes, by name."""


def wanted(request: Request, asked: str | None, offered: Sequence[str]) -> str:
    """One of `offered` (names of MEDIA_TYPES, the default first), or `asked`, which is one of them.

    Raises NotAcceptable where the Accept header takes none.
    """
    if asked is not None:
        return asked
    by_type = {MEDIA_TYPES[name]: name for name in offered}
    accept = ",".join(request.headers.getlist("accept"))
    found = preferred(accept, list(by_type))
    if found is None:
        raise NotAcceptable(
            f"the Accept header takes none of {', '.join(by_type)}, which there are; or say "
            f"?format={offered[0]}"
        )
    return by_type[found]


def preferred(accept: str, offered: Sequence[str]) -> str | None:
    """The media type of `offered` that an Accept header likes best; None where it takes none.

    RFC 9110, section 12.5.1: the most specific range that matches a type gives its quality, and 0
    refuses it. Of types with the same quality the one that is named more specifically is taken,
    then the earlier of `offered`. Parameters other than q are passed over; an empty header takes
    everything.
    """
    ranges = _ranges(accept)
    if not ranges:
        return offered[0]
    best: tuple[float, int] = (0.0, 0)
    found = None
    for kind in offered:
        quality, specificity = _quality(kind, ranges)
        if quality > 0 and (quality, specificity) > best:
            best, found = (quality, specificity), kind
    return found


def _ranges(accept: str) -> dict[str, float]:
    """Media ranges in lower case with their quality; one that cannot be read takes nothing."""
    found: dict[str, float] = {}
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if not media:
            continue
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                quality = _number(value.strip())
        found[media] = max(quality, found.get(media, 0.0))
    return found


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0


def _quality(kind: str, ranges: Mapping[str, float]) -> tuple[float, int]:
    """The quality of a media type, and how specifically it is named (2: itself, 0: */*)."""
    whole = f"{kind.partition('/')[0]}/*"
    for specificity, media in ((2, kind), (1, whole), (0, "*/*")):
        if media in ranges:
            return ranges[media], specificity
    return 0.0, 0
