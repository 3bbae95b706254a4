"""Common prefixes of token sequences."""

from collections.abc import Sequence


def common_length(sequences: Sequence[list[int]]) -> int:
    """Length of the longest common beginning."""
    first, last = min(sequences), max(sequences)
    for place, (a, b) in enumerate(zip(first, last, strict=False)):
        if a != b:
            return place
    return min(len(first), len(last))
