"""Common prefixes of token sequences and of texts."""

from collections.abc import Sequence
from typing import TypeVar

TokensOrText = TypeVar("TokensOrText", list[int], str)


def common_length(sequences: Sequence[TokensOrText]) -> int:
    """Return the length of the longest common prefix. Needs at least one sequence."""
    first, last = min(sequences), max(sequences)
    for index, (a, b) in enumerate(zip(first, last, strict=False)):
        if a != b:
            return index
    return min(len(first), len(last))
