"""Small samples: a rate is judged by its denominator, not by the rows of its group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from service.domain.wording import count


class Counted(Protocol):
    """Protocol of a group or another stratum with its numbers of rows."""

    @property
    def positives(self) -> int: ...
    @property
    def negatives(self) -> int: ...


class Counts(NamedTuple):
    """Numbers of rows of a group, by class."""

    positives: int
    negatives: int


def is_small(denominator: int, min_support: int) -> bool:
    """Return True if a rate rests on fewer rows than `min_support`; without any it is null."""
    return 0 < denominator < min_support


def is_small_sample(positives: int, negatives: int, min_support: int) -> bool:
    """Return True if the FPR or the FNR rests on fewer rows than `min_support`."""
    return is_small(negatives, min_support) or is_small(positives, min_support)


def small_rates(part: Counted, min_support: int) -> Iterator[str]:
    """Yield a phrase for each rate that rests on too few rows: "12 negatives (FPR)"."""
    if is_small(part.negatives, min_support):
        yield f"{count(part.negatives, 'negative')} (FPR)"
    if is_small(part.positives, min_support):
        yield f"{count(part.positives, 'positive')} (FNR)"


def describe_small(name: str, part: Counted, min_support: int) -> str | None:
    """Return a sentence about the rates of a group that rest on too few rows; None if none do."""
    rates = list(small_rates(part, min_support))
    if not rates:
        return None
    return f"{name} has {' and '.join(rates)}, fewer than {min_support:,}."
