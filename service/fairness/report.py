"""Predictions in, bias report out: a pure function, the same answer for the same input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from service.fairness import criteria, metrics, rates, rules, verdicts
from service.fairness.baselines import LabelCounts, group_majority
from service.fairness.columns import Answers, Split, answers, equal, parts
from service.fairness.curves import curves
from service.fairness.intervals import ScoreFigures, overall_figures, score_figures
from service.fairness.mistakes import worst_mistakes
from service.fairness.paired import before_after
from service.fairness.parity import parity_report
from service.fairness.predictions import Predictions
from service.fairness.report_warnings import report_warnings
from service.fairness.schema import (
    Baselines,
    BiasReport,
    FormatSample,
    Overall,
    OverallMetrics,
    ReportData,
    ReportMeta,
    ReportSettings,
    ReportWarning,
    Shown,
)
from service.fairness.strata import functional, group_reports, strata

__all__ = ["BiasReport", "ReportMeta", "build_report"]


def build_report(
    tuned: Predictions,
    *,
    meta: ReportMeta,
    positive_label: str,
    base: Predictions | None = None,
    validation: Predictions | None = None,
    train_counts: LabelCounts | None = None,
    caps: Iterable[verdicts.Cap] = (),
    min_f1: float | None = None,
    confidence: float = 0.95,
    min_support: int = 30,
    threshold: float | None = None,
    shown: Shown | None = None,
    base_shown: Shown | None = None,
    without_label: int | None = None,
    validation_is_sample: bool = False,
    format_sample: FormatSample | None = None,
    dataset_warnings: Iterable[ReportWarning] = (),
    bootstrap_seed: int = 0,
) -> BiasReport:
    """Report on `tuned`, beside `base` on the same rows where the base model was scored.

    The predictions of both are the most probable labels (argmax). `meta.threshold` says by which
    rule the headline figures of `tuned` are taken: by these, at the threshold fitted on
    `validation` (the same model's predictions on that split), or at the `threshold` given. Every
    rule's verdicts are in the report in any case.

    `train_counts` (see `baselines.label_counts`) teaches the group-majority baseline and says which
    groups the data has: a capped group seen there but not in this split is inconclusive, one seen
    nowhere is not applicable. `confidence` is that of the two-sided intervals and, by itself, of
    each one-sided limit. `min_support` is in rows. `shown`, `base_shown`, `without_label` (rows
    that were scored and are not in `tuned`), `format_sample` and `dataset_warnings` are passed on,
    with a warning where they call for one; so is `validation_is_sample`, whether `validation` is of
    a part of its split's rows alone. `bootstrap_seed` decides the bootstrap's draws alone.

    Raises ValueError when the confidence is not in [0.5, 1), when `base` is about other rows than
    `tuned`, when the split or step that the predictions carry is not the one in `meta`, or when
    the rule that `meta` names lacks its threshold or its rows to fit one on.
    """
    rates.check_confidence(confidence)
    _check_origin(tuned, base, validation, meta)
    _check_rule(meta, threshold, validation)
    asked = rules.Asked(tuple(caps), min_f1, train_counts or {})
    decided = rules.decided(
        answers(tuned, positive_label), threshold, validation, positive_label, asked
    )
    split = Split(
        truth=equal(tuned.labels, positive_label),
        tuned=decided[meta.threshold].answers,
        base=None if base is None else answers(base, positive_label),
        groups=parts(tuned.groups, {cap.group for cap in asked.caps}),
        sources=parts(tuned.sources),
        details=parts(tuned.details),
        confidence=confidence,
        min_support=min_support,
    )

    def figures(model: Answers, scored: ScoreFigures) -> OverallMetrics:
        return overall_figures(split.truth, model, scored, confidence, bootstrap_seed)

    scored = score_figures(split.truth, split.tuned.scores, confidence, bootstrap_seed)
    thresholds = [
        rules.verdict_under(rule, split, figures(rule.answers, scored), asked)
        for rule in decided.values()
    ]
    if validation is None:
        thresholds.insert(1, rules.not_fitted(asked))
    headline = next(each for each in thresholds if each.rule == meta.threshold)
    overall = Overall(tuned=headline.overall, base=None, difference=None)
    if split.base is not None:
        scored = score_figures(split.truth, split.base.scores, confidence, bootstrap_seed)
        before = figures(split.base, scored)
        overall = Overall(
            tuned=headline.overall,
            base=before,
            difference=metrics.differences(headline.overall, before),
        )
    groups = group_reports(split)
    data = ReportData(
        rows=len(tuned),
        positives=int(split.truth.sum()),
        negatives=int((~split.truth).sum()),
        without_label=without_label,
        without_group=sum(group is None for group in tuned.groups),
        labels=dict(sorted(Counter(tuned.labels).items())),
    )
    report = BiasReport(
        meta=meta,
        shown=shown,
        base_shown=None if base is None else base_shown,
        settings=ReportSettings(
            positive_label=positive_label,
            confidence=confidence,
            min_support=min_support,
            threshold=headline.threshold,
            bootstrap_seed=bootstrap_seed,
        ),
        data=data,
        success=criteria.success(overall.tuned, overall.base, min_f1, meta),
        overall=overall,
        groups=groups,
        by_source=strata(split, split.sources),
        by_detail=strata(split, split.details),
        functional=functional(split, tuned.labels),
        parity=parity_report(groups, confidence, bootstrap_seed),
        before_after=before_after(split),
        baselines=_baselines(tuned.groups, split, train_counts, positive_label),
        caps=headline.caps,
        caps_verdict=headline.caps_verdict,
        min_f1=headline.min_f1,
        thresholds=tuple(thresholds),
        curves=curves(split, overall.tuned.calibration_error),
        worst_mistakes=worst_mistakes(tuned, positive_label, split.truth, split.tuned),
        format_sample=format_sample,
        warnings=(),
    )
    return report.model_copy(
        update={
            "warnings": tuple(
                report_warnings(
                    report,
                    split,
                    validation,
                    dataset_warnings,
                    validation_is_sample=validation_is_sample,
                )
            )
        }
    )


def _check_origin(
    tuned: Predictions, base: Predictions | None, validation: Predictions | None, meta: ReportMeta
) -> None:
    if base is not None and not tuned.same_rows_as(base):
        raise ValueError("base and tuned predictions are not about the same rows in the same order")
    for predictions in (tuned, base):
        if predictions is not None and predictions.split not in (None, meta.split):
            raise ValueError(f"predictions are of {predictions.split!r}, meta says {meta.split!r}")
    for predictions in (tuned, validation):
        step = None if predictions is None else predictions.checkpoint_step
        if step not in (None, meta.checkpoint_step):
            raise ValueError(f"predictions are of step {step}, meta says {meta.checkpoint_step}")


def _check_rule(meta: ReportMeta, threshold: float | None, validation: Predictions | None) -> None:
    if (meta.threshold == "given") != (threshold is not None):
        raise ValueError(f"meta.threshold is {meta.threshold!r}, but threshold is {threshold}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], not {threshold}")
    if meta.threshold == "fitted" and validation is None:
        raise ValueError("meta.threshold is 'fitted', but there are no validation predictions")


def _baselines(
    groups: Sequence[str | None],
    split: Split,
    train: LabelCounts | None,
    positive_label: str,
) -> Baselines:
    import numpy as np

    truth = split.truth
    always = metrics.overall_metrics(truth, np.ones_like(truth), None, split.confidence)
    if not train:
        majority = metrics.unknown_metrics("the training split's labels were not given")
        return Baselines(always_positive=always, group_majority=majority)
    called = np.array(group_majority(groups, train, positive_label))
    return Baselines(
        always_positive=always,
        group_majority=metrics.overall_metrics(truth, called, None, split.confidence),
        majority_positive={name: bool(called[rows[0]]) for name, rows in split.groups.rows.items()},
    )
