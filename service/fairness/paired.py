"""Paired comparison of two models: McNemar's exact test, with Holm's adjustment over groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.fairness.columns import Split
from service.fairness.schema_verdicts import BeforeAfter, GroupPaired, Paired

if TYPE_CHECKING:
    from service.fairness.columns import Bools


def before_after(split: Split) -> BeforeAfter | None:
    """Compare base and tuned model row by row; return None without a base model."""
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
    """Return McNemar's exact test (1947) of two models; True marks a row that a model got right.

    The two-sided p-value is that of a binomial test with probability 1/2 on the rows that exactly
    one of the models got right. The arrays are parallel, one entry per row.
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
    """Return p-values adjusted by Holm's step-down method (1979), in the given order.

    Comparing each with a level controls the family-wise error rate at that level. The i-th smallest
    of m is multiplied by m - i + 1, then raised to the largest before it, and is at most 1.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
