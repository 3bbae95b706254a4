"""Prefixed, time-sortable identifiers such as ``run_01hxyz…`` (the ULID layout, in lower case)."""

import os
import re
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32
_ULID = re.compile(rf"[0-7][{_ALPHABET}]{{25}}")  # 130 bits for 128


def new_id(prefix: str) -> str:
    """Return ``prefix_`` and 26 characters: 48 bits of Unix milliseconds, then 80 random bits.

    Ids of different milliseconds sort by time. Source: github.com/ulid/spec.
    """
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return f"{prefix}_" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def id_pattern(prefix: str) -> str:
    """Return the pattern, for JSON Schema, of the ids that `new_id(prefix)` makes."""
    return f"^{prefix}_{_ULID.pattern}$"


def is_id(text: str, prefix: str) -> bool:
    """Return True if `text` could be an id that `new_id(prefix)` made."""
    return text.startswith(f"{prefix}_") and _ULID.fullmatch(text, len(prefix) + 1) is not None
