"""Common prefixes of token sequences."""

from collections.abc import Sequence


def common_length(sequences: Sequence[list[int]]) -> int:
    """Return the length of the longest common prefix. Needs at least one sequence."""
    first, last = min(sequences), max(sequences)
    for index, (a, b) in enumerate(zip(first, last, strict=False)):
        if a != b:
            return index
    return min(len(first), len(last))
