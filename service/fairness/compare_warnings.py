"""Warnings of a comparison: reasons why a figure may be less reliable than it looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from service.fairness.columns import Partition
from service.fairness.schema import ReportWarning
from service.fairness.support import Counts, describe_small

if TYPE_CHECKING:
    from service.fairness.columns import Bools


def comparison_warnings(
    models: int,
    fitted: Sequence[str],
    split: str,
    truth: Bools,
    groups: Partition,
    min_support: int,
) -> Iterator[ReportWarning]:
    """Yield the warnings about `models` models, of which `fitted` use a fitted threshold."""
    if split == "validation" and fitted:
        yield ReportWarning(
            code="threshold_fitted_here",
            detail=f"The thresholds of {', '.join(fitted)} were fitted on these rows: their "
            "figures are likely to be better than on other rows.",
        )
    if split == "test":
        yield ReportWarning(
            code="choosing_on_test",
            detail=f"The best of {models} models on these rows looks better than it is. Choose on "
            "the validation split, and use the test split only to evaluate the chosen model.",
        )
    if truth.all() or not truth.any():
        yield ReportWarning(
            code="one_class",
            detail=f"All rows are of one class: AUC and {'FPR' if truth.any() else 'FNR'} cannot "
            "be computed.",
        )
    for name, rows in groups.rows.items():
        positives = int(truth[rows].sum())
        detail = describe_small(name, Counts(positives, len(rows) - positives), min_support)
        if detail is not None:
            yield ReportWarning(code="small_group", detail=detail)
    if groups.values > len(groups.rows):
        yield ReportWarning(
            code="groups_left_out",
            detail=f"The data has {groups.values:,} groups. The comparison includes the "
            f"{len(groups.rows)} with the most rows and those with a cap.",
        )
