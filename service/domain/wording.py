"""Numbers in sentences: thousands separators, and agreement of noun and verb with the number."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """Return the number with its noun, in the plural unless the number is 1: "1,009 rows"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def agree(number: int, singular: str, plural: str) -> str:
    """Return the word form for that number: `agree(1, "has", "have")` is "has"."""
    return singular if number == 1 else plural
