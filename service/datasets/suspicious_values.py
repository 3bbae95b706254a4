"""Values that are probably none: words for a missing value, and one name in several spellings."""

import re
import unicodedata
from collections.abc import Iterable

from service.datasets.convert import whole_number

# In lower case: pandas' na_values, and what databases, spreadsheets and R write.
_MISSING_VALUES = """
nan -nan nan. nat na n.a. n/a none null (null) nil undefined missing
#n/a #na <na> #value! #ref! #name? #num! #null! #div/0! 1.#ind -1.#ind 1.#qnan -1.#qnan
\\n - -- ? . [] {}
"""
_MISSING = frozenset(_MISSING_VALUES.split())
_MAX_LENGTH = 20
_SEPARATORS = re.compile(r"[\s_-]+")


def is_missing(value: str) -> bool:
    """Return True for what programs write where a value is missing, such as nan and NULL."""
    return len(value) < _MAX_LENGTH and value.strip().lower() in _MISSING


def spellings(names: Iterable[str]) -> list[list[str]]:
    """Return the sets of names that differ only in their spelling.

    That is in case, spaces, hyphens, invisible characters, or the fraction of 1.0.
    """
    sets: dict[str, list[str]] = {}
    for name in names:
        sets.setdefault(_normalized(name), []).append(name)
    return [names for names in sets.values() if len(names) > 1]


def _normalized(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return whole_number(text) or _SEPARATORS.sub(" ", text).strip() or name
