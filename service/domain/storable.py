"""Text that every database can store, and names that look like what they are."""

from typing import Any

from service.domain.errors import InvalidRequest, pointer_of

NO_NUL = r"^[^\u0000]*$"
NOT_EMPTY = r"^[^\u0000]*[^\s\u0000][^\u0000]*$"
"""Patterns of JSON Schema: text without NUL; with a character that is no white space."""
_UNPRINTABLE = (
    r"\u0000-\u001f\u007f-\u00a0\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u1680\u180e"
    r"\u2000-\u200f\u2028-\u202f\u205f-\u2064\u2066-\u206f\u3000\ue000-\uf8ff\ufeff\ufff9-\ufffb"
)
"""Control, format, private and separator characters of the Basic Multilingual Plane but the space;
code points that Unicode has not assigned are unprintable, too, but depend on its version."""
PRINTABLE = rf"^[^{_UNPRINTABLE}]*$"
NOT_BLANK = rf"^(?! *$)[^{_UNPRINTABLE}]+$"
NOT_PADDED = rf"^(?! )(?!.* $)[^{_UNPRINTABLE}]+$"
"""Printable text; with a character other than the space; with none at either end."""

UNSTORABLE = "the text contains NUL or an unpaired surrogate"
UNPRINTABLE = (
    "the text contains unprintable characters, such as line ends or bidirectional controls"
)


def is_storable(text: str) -> bool:
    """Return False for NUL, which PostgreSQL rejects, and for what is not Unicode text."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    return not any("\ud800" <= character <= "\udfff" for character in text)


def check_storable(value: Any) -> None:
    """Raise InvalidRequest that points to the first text of a JSON value that is not storable."""
    location = _first_unstorable(value)
    if location is not None:
        printable = (
            part for part in reversed(location) if isinstance(part, int) or part.isprintable()
        )
        raise InvalidRequest.at(pointer_of(printable), UNSTORABLE)


def _first_unstorable(value: Any) -> list[str | int] | None:
    """Return the reversed location; it is built on the way back, so that depth costs nothing."""
    if isinstance(value, str):
        return None if is_storable(value) else []
    if isinstance(value, dict):
        for key, item in value.items():
            if not is_storable(key):
                return []
            if (location := _first_unstorable(item)) is not None:
                return [*location, key]
    elif isinstance(value, list):
        for number, item in enumerate(value):
            if (location := _first_unstorable(item)) is not None:
                return [*location, number]
    return None


def check_visible(pointer: str, text: object) -> None:
    """Raise InvalidRequest for a name that would look like another one or none, or break a line."""
    if not isinstance(text, str):
        return
    if not text.isprintable():
        raise InvalidRequest.at(pointer, UNPRINTABLE)
    if text and not text.strip():
        raise InvalidRequest.at(pointer, "must not be blank")
