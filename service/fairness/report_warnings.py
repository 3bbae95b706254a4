"""Warnings of a bias report: reasons why a figure may be less reliable than it looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from service.domain.wording import agree, count
from service.fairness.columns import MAX_PARTS, Partition, Split
from service.fairness.predictions import Predictions
from service.fairness.report_inputs import ReportContext, ScoredData
from service.fairness.schema import BiasReport, CapVerdict, ReportWarning
from service.fairness.support import describe_small

TRAINING_ROWS_UNKNOWN = (
    "The adapter was imported: it is unknown on which rows it was trained. If some of these rows "
    "are among them, the figures are likely to be better than on unseen rows."
)


def report_warnings(
    report: BiasReport,
    split: Split,
    data: ScoredData,
    context: ReportContext,
) -> Iterator[ReportWarning]:
    """Yield the warnings that apply to `report`, then those of its dataset.

    `split` holds the evaluated rows, `data.validation` the rows that the threshold was fitted on.
    """
    if report.meta.exploratory:
        differences = "; ".join(context.differences)
        yield warn(
            "exploratory",
            "This report is exploratory and does not gate a release: "
            f"{differences or 'it differs from the one that certifies the run'}.",
        )
    if context.training_unknown:
        yield warn("training_rows_unknown", TRAINING_ROWS_UNKNOWN)
    yield from _seen_warnings(report)
    yield from _input_warnings(report)
    yield from _prediction_warnings(report)
    yield from _group_warnings(report)
    yield from _threshold_warnings(report, data)
    for column, plural, partition in [
        ("groups", "groups", split.groups),
        ("sources", "sources", split.sources),
        ("details", "finer labels", split.details),
    ]:
        yield from _omitted_parts(column, plural, partition)
    yield from context.dataset_warnings


def warn(code: str, detail: str) -> ReportWarning:
    return ReportWarning(code=code, detail=detail)


def _seen_warnings(report: BiasReport) -> Iterator[ReportWarning]:
    """Warn of rows whose text may have influenced the model, in whichever dataset they are."""
    data, split = report.data, report.meta.split
    trained, chosen = data.seen_in_training, data.seen_in_validation
    if trained is None or chosen is None:
        influence = {
            "train": "the model may have been trained on these rows",
            "validation": "the checkpoint or the threshold may have been chosen on these rows",
        }.get(split)
    elif trained == data.rows:
        influence = "the model was trained on these rows"
    elif chosen == data.rows:
        influence = "the checkpoint or the threshold may have been chosen on these rows"
    else:
        influence = None
        if trained:
            yield _seen("seen_in_training", trained, report, "the model was trained on")
        if chosen:
            yield _seen(
                "seen_in_validation",
                chosen,
                report,
                "is also in the run's validation split, on which the checkpoint or the threshold "
                "may have been chosen",
            )
    if influence is not None:
        yield warn(
            "not_certifying_split" if split != "test" else "seen_in_training",
            f"This is the {split} split: {influence}, so the figures are likely to be better than "
            "on unseen rows.",
        )


def _seen(code: str, seen: int, report: BiasReport, influence: str) -> ReportWarning:
    unseen = report.unseen.rows if report.unseen is not None else 0
    others = "No row is unseen."
    if unseen:
        others = f"The report also has the verdicts on the other {count(unseen, 'row')} (unseen)."
    return warn(
        code,
        f"{seen:,} of {count(report.data.rows, 'row')} {agree(seen, 'has', 'have')} a text that "
        f"{influence}: figures that include {agree(seen, 'it', 'them')} are likely to be better "
        f"than on unseen rows. {others}",
    )


def _input_warnings(report: BiasReport) -> Iterator[ReportWarning]:
    data, prompt, base_prompt = report.data, report.shown, report.base_shown
    if data.without_label:
        yield warn(
            "rows_without_label",
            f"{count(data.without_label, 'scored row')} "
            f"{agree(data.without_label, 'has no label and is', 'have no label and are')} not "
            "included in any figure.",
        )
    if report.meta.max_samples is not None:
        yield warn(
            "rows_sampled",
            "The figures are based on a sample of the split: at most "
            f"{count(report.meta.max_samples, 'row')} (max_samples).",
        )
    if not data.positives or not data.negatives:
        yield warn(
            "one_class",
            "All rows are of one class: "
            f"{'AUC and FPR' if data.positives else 'F1, recall, FNR and AUC'} cannot be computed.",
        )
    if prompt is not None and prompt.group:
        yield warn("group_shown", "The prompt states each row's group.")
    if prompt is not None and prompt.truncated:
        yield warn(
            "rows_truncated",
            f"The end of the text was cut off in {count(prompt.truncated, 'row')} of the split, "
            "because the prompt was too long.",
        )
    if base_prompt is not None and base_prompt.group:
        yield warn("base_group_shown", "The base model's prompt states each row's group.")
    if base_prompt is not None and base_prompt.truncated:
        yield warn(
            "base_rows_truncated",
            "For the base model, the end of the text was cut off in "
            f"{count(base_prompt.truncated, 'row')} of the split, because the prompt was too long.",
        )


def _prediction_warnings(report: BiasReport) -> Iterator[ReportWarning]:
    tuned, positive = report.overall.tuned, report.settings.positive_label
    assert tuned.confusion is not None
    called = tuned.confusion.true_positive + tuned.confusion.false_positive
    if called == report.data.rows:
        yield warn("one_prediction", f"The model predicts {positive!r} for every row.")
    elif not called:
        yield warn("one_prediction", f"The model never predicts {positive!r}.")
    baseline = report.baselines.always_positive.f1.value
    if tuned.f1.value is not None and baseline is not None and tuned.f1.value <= baseline:
        yield warn(
            "below_baseline",
            f"F1 is {tuned.f1.value:.4f}, which is not above the {baseline:.4f} of predicting "
            f"{positive!r} for every row.",
        )
    sample = report.format_sample
    if sample is not None and (outside := sample.outside.numerator):
        yield warn(
            "answers_outside_format",
            f"{outside} of {count(sample.rows, 'freely generated answer')} "
            f"{agree(outside, 'was', 'were')} not a label. The figures use the labels' scores, "
            "which always select a label.",
        )


def _group_warnings(report: BiasReport) -> Iterator[ReportWarning]:
    data, min_support = report.data, report.settings.min_support
    if not report.groups:
        yield warn("no_groups", "No row has a group, so the report has no figures by group.")
    elif data.without_group:
        yield warn(
            "rows_without_group",
            f"{data.without_group:,} of {count(data.rows, 'row')} "
            f"{agree(data.without_group, 'has no group and is', 'have no group and are')} included "
            "in the overall figures only.",
        )
    for group in report.groups:
        if (detail := describe_small(group.group, group, min_support)) is not None:
            yield warn("small_group", detail)
    for cap in report.caps:
        if cap.verdict == "not_applicable":
            yield warn(
                "cap_not_applicable",
                f"There is a cap on the {cap.metric.upper()} of group {cap.group!r}, but no split "
                "of the dataset has such a group.",
            )


def _threshold_warnings(report: BiasReport, data: ScoredData) -> Iterator[ReportWarning]:
    fitted = next(entry for entry in report.thresholds if entry.rule == "fitted")
    validation = data.validation
    if fitted.fit is None or validation is None:
        yield warn("threshold_not_fitted", f"No threshold was fitted: {fitted.reason}.")
        return
    fit, positive = fitted.fit, report.settings.positive_label
    if data.validation_is_sample:
        yield warn(
            "fitted_on_sample",
            f"The threshold was fitted on a sample of the {fit.split} split "
            f"({count(fit.rows, 'labelled row')}), not on all of its rows.",
        )
    if fit.split == report.meta.split:
        yield warn(
            "threshold_fitted_here",
            f"The threshold was fitted on the {fit.split} split, which is also the split of this "
            "report: the figures at this threshold are likely to be better than on other rows.",
        )
    if positive not in validation.labels:
        yield warn(
            "fit_without_positives",
            f"The {fit.split} split has no {positive!r} rows, so the threshold fitted on it is not "
            "meaningful.",
        )
    if not fit.feasible:
        yield warn(
            "fit_infeasible",
            f"No threshold satisfies every cap and the minimum F1 on the {fit.split} split. The "
            f"fitted threshold has the smallest total violation, {fit.violation:.4f}.",
        )
    yield from _caps_without_rows(fitted.caps, fit.split, validation, positive)


def _caps_without_rows(
    caps: Iterable[CapVerdict], fit_split: str, validation: Predictions, positive: str
) -> Iterator[ReportWarning]:
    """Warn of caps that the fit could not consider, for lack of rows of that group and class."""
    present = {
        (group, "fnr" if label == positive else "fpr")
        for group, label in zip(validation.groups, validation.labels, strict=True)
    }
    for cap in caps:
        if (cap.group, cap.metric) not in present and cap.verdict != "not_applicable":
            kind = "negative" if cap.metric == "fpr" else "positive"
            yield warn(
                "cap_not_in_validation",
                f"The {fit_split} split has no {kind} rows of {cap.group}, so the threshold was "
                f"fitted without the cap on its {cap.metric.upper()}.",
            )


def _omitted_parts(column: str, plural: str, partition: Partition) -> Iterator[ReportWarning]:
    if partition.values > len(partition.rows):
        yield warn(
            f"many_{column}",
            f"The data has {partition.values:,} {plural}. The report includes the {MAX_PARTS} "
            "with the most rows" + (" and those with a cap." if column == "groups" else "."),
        )
