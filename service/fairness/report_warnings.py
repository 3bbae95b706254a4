"""What a reader of a bias report must know before believing its figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.fairness.schema import (
    CapVerdict,
    GroupReport,
    ReportData,
    ReportMeta,
    ReportWarning,
)


def report_warnings(
    predicted: set[str],
    meta: ReportMeta,
    data: ReportData,
    groups: Sequence[GroupReport],
    caps: Sequence[CapVerdict],
    min_support: int,
) -> Iterator[ReportWarning]:
    """Warn of every figure that is less than it seems.

    `predicted` is the set of labels that the model gave; `min_support` is in rows.
    """

    def warn(code: str, detail: str) -> ReportWarning:
        return ReportWarning(code=code, detail=detail)

    if meta.exploratory:
        yield warn("exploratory", "Asked for with other settings than the run's: gates nothing.")
    if not data.positives or not data.negatives:
        yield warn("one_class", "Every row is of one class: FPR or FNR and AUC cannot be computed.")
    if len(predicted) == 1:
        yield warn("one_prediction", f"The model calls every row {min(predicted)!r}.")
    if not groups:
        yield warn("no_groups", "No row has a group: the report cannot say whom the model fails.")
    elif data.without_group:
        yield warn(
            "rows_without_group",
            f"{data.without_group} of {data.rows} rows have no group and count overall only.",
        )
    for group in groups:
        if group.small_sample:
            yield warn(
                "small_group", f"{group.group} has {group.n} rows, fewer than {min_support}."
            )
    for cap in caps:
        if cap.verdict == "not_applicable":
            yield warn("cap_not_applicable", f"The data has no group {cap.group!r} for its cap.")
