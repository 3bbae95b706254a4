"""Base model against tuned model on the same rows: McNemar's exact test, Holm over the groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.fairness.columns import Split
from service.fairness.schema_detail import BeforeAfter, GroupPaired, Paired

if TYPE_CHECKING:
    from service.fairness.columns import Bools


def before_after(split: Split) -> BeforeAfter | None:
    """Whether training changed which rows are called right; None without a base model."""
    if split.base is None:
        return None
    first = split.base.called == split.truth
    second = split.tuned.called == split.truth
    tests = {name: paired(first[rows], second[rows]) for name, rows in split.groups.rows.items()}
    adjusted = holm([test.p_value for test in tests.values()])
    return BeforeAfter(
        overall=paired(first, second),
        groups=tuple(
            GroupPaired(group=name, paired=test.model_copy(update={"p_holm": p_holm}))
            for (name, test), p_holm in zip(tests.items(), adjusted, strict=True)
        ),
    )


def paired(first: Bools, second: Bools) -> Paired:
    """Two models by which rows each got right; the arrays are parallel, one entry per row.

    The p-value is the exact two-sided one of McNemar's test: were neither model better, each row
    that one alone got right would be either's by the toss of a coin.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differ = only_first + only_second
    return Paired(
        rows=len(first),
        both_right=int((first & second).sum()),
        both_wrong=int((~first & ~second).sum()),
        only_first=only_first,
        only_second=only_second,
        p_value=float(binomtest(only_first, differ).pvalue) if differ else 1.0,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted so that each may be held against the level that all share (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, is no smaller than those before it and at
    most 1.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
