"""What a reader of a bias report must know before believing its figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from service.fairness.columns import MOST_PARTS, Parts, Split
from service.fairness.predictions import Predictions
from service.fairness.schema import BiasReport, ReportWarning


def report_warnings(
    report: BiasReport,
    split: Split,
    validation: Predictions | None,
    dataset_warnings: Iterable[ReportWarning],
    *,
    validation_is_sample: bool = False,
) -> Iterator[ReportWarning]:
    """Warn of every figure of `report` that is less than it seems; the dataset's own come last.

    `split` holds the rows that it is about, `validation` those that its threshold was fitted on:
    all of their split's, or a sample.
    """
    if report.meta.exploratory:
        yield warn("exploratory", "Asked for with other settings than the run's: gates nothing.")
    yield from _of_the_split(report.meta.split)
    yield from _of_the_input(report)
    yield from _of_the_answers(report)
    yield from _of_the_groups(report)
    yield from _of_the_threshold(report, validation, is_sample=validation_is_sample)
    for column, what, parts in [
        ("groups", "groups", split.groups),
        ("sources", "sources", split.sources),
        ("details", "finer labels", split.details),
    ]:
        yield from _cut(column, what, parts)
    yield from dataset_warnings


def warn(code: str, detail: str) -> ReportWarning:
    return ReportWarning(code=code, detail=detail)


def _of_the_split(split: str) -> Iterator[ReportWarning]:
    """The test split alone tells what the model does with rows that had no part in making it."""
    had = {
        "train": "the model was trained on these rows",
        "validation": "the checkpoint, or a threshold, may have been chosen by these rows",
    }.get(split)
    if had is not None:
        yield warn(
            "not_certifying_split",
            f"This is the {split} split: {had}, and the figures are better than on others.",
        )


def _of_the_input(report: BiasReport) -> Iterator[ReportWarning]:
    data, shown = report.data, report.shown
    if data.without_label:
        yield warn(
            "rows_without_label",
            f"{data.without_label} rows that were scored have no label: they are in no figure.",
        )
    if report.meta.max_samples is not None:
        yield warn(
            "rows_sampled",
            f"At most {report.meta.max_samples} rows of the split were scored (max_samples): the "
            "figures are of that sample.",
        )
    if not data.positives or not data.negatives:
        yield warn("one_class", "Every row is of one class: FPR or FNR and AUC cannot be computed.")
    if shown is not None and shown.group:
        yield warn("group_shown", "The prompt told the model each row's group.")
    if shown is not None and shown.truncated:
        yield warn(
            "rows_truncated",
            f"{shown.truncated} rows of the split were too long: the ends of their texts were cut "
            "off.",
        )
    if report.base_shown is not None and report.base_shown.group:
        yield warn("base_group_shown", "The base model's prompt told it each row's group.")
    if report.base_shown is not None and report.base_shown.truncated:
        yield warn(
            "base_rows_truncated",
            f"For the base model {report.base_shown.truncated} rows were too long: the ends of "
            "their texts were cut off.",
        )


def _of_the_answers(report: BiasReport) -> Iterator[ReportWarning]:
    tuned, positive = report.overall.tuned, report.settings.positive_label
    assert tuned.confusion is not None
    called = tuned.confusion.true_positive + tuned.confusion.false_positive
    if called == report.data.rows:
        yield warn("one_prediction", f"The model calls every row {positive!r}.")
    elif not called:
        yield warn("one_prediction", f"The model calls no row {positive!r}.")
    least = report.baselines.always_positive.f1.value
    if tuned.f1.value is not None and least is not None and tuned.f1.value <= least:
        yield warn(
            "below_baseline",
            f"F1 {tuned.f1.value:.4f} is not above the {least:.4f} of calling every row "
            f"{positive!r}.",
        )
    sample = report.format_sample
    if sample is not None and sample.outside.numerator:
        yield warn(
            "answers_outside_format",
            f"{sample.outside.numerator} of {sample.rows} freely written answers were no label: "
            "the figures are of label scores, which always name one.",
        )


def _of_the_groups(report: BiasReport) -> Iterator[ReportWarning]:
    data, least = report.data, report.settings.min_support
    if not report.groups:
        yield warn("no_groups", "No row has a group: the report cannot say whom the model fails.")
    elif data.without_group:
        yield warn(
            "rows_without_group",
            f"{data.without_group} of {data.rows} rows have no group and count overall only.",
        )
    for group in report.groups:
        if group.small_sample:
            yield warn("small_group", f"{group.group} has {group.n} rows, fewer than {least}.")
    for cap in report.caps:
        if cap.verdict == "not_applicable":
            yield warn("cap_not_applicable", f"The data has no group {cap.group!r} for its cap.")


def _of_the_threshold(
    report: BiasReport, validation: Predictions | None, *, is_sample: bool
) -> Iterator[ReportWarning]:
    fitted = next(each for each in report.thresholds if each.rule == "fitted")
    if fitted.fit is None or validation is None:
        yield warn("threshold_not_fitted", f"No threshold could be fitted: {fitted.reason}.")
        return
    fit, positive = fitted.fit, report.settings.positive_label
    if is_sample:
        yield warn(
            "fitted_on_sample",
            f"The fitted threshold is of a sample of {fit.rows} labelled rows of the {fit.split} "
            "split, not of all of them.",
        )
    if fit.split == report.meta.split:
        yield warn(
            "threshold_fitted_here",
            f"The fitted threshold was fitted on the {fit.split} split, which this report is "
            "about: figures at it are better than they would be on other rows.",
        )
    if positive not in validation.labels:
        yield warn(
            "fit_without_positives",
            f"The {fit.split} split has no {positive!r} row: the threshold fitted on it means "
            "little.",
        )
    if not fit.feasible:
        yield warn(
            "fit_infeasible",
            f"No threshold holds every cap and the least F1 on the {fit.split} split; the fitted "
            f"one passes them by {fit.violation:.4f} in all, the least there is.",
        )
    rows = {
        (group, "fnr" if label == positive else "fpr")
        for group, label in zip(validation.groups, validation.labels, strict=True)
    }
    for cap in fitted.caps:
        if (cap.group, cap.metric) not in rows and cap.verdict != "not_applicable":
            among = "negative" if cap.metric == "fpr" else "positive"
            yield warn(
                "cap_not_in_validation",
                f"The {fit.split} split has no {among} rows of {cap.group}: the threshold was "
                f"fitted without its cap on {cap.metric.upper()}.",
            )


def _cut(column: str, what: str, parts: Parts) -> Iterator[ReportWarning]:
    if parts.values > len(parts.rows):
        yield warn(
            f"many_{column}",
            f"The data has {parts.values:,} {what}; the report holds the {MOST_PARTS} with the "
            "most rows" + (", those that a cap names among them." if column == "groups" else "."),
        )
