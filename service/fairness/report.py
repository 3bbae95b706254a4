"""Build a bias report from predictions: a pure function with the same output for the same input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from service.fairness import criteria, metrics, rates, rules
from service.fairness.baselines import LabelCounts, group_majority
from service.fairness.columns import Split, binary_predictions, equal, partition
from service.fairness.criteria import Criteria
from service.fairness.curves import curves
from service.fairness.intervals import overall_figures, score_figures
from service.fairness.mistakes import worst_mistakes
from service.fairness.paired import before_after
from service.fairness.parity import parity_report
from service.fairness.report_inputs import ReportContext, ScoredData, check_inputs
from service.fairness.report_warnings import report_warnings
from service.fairness.schema import (
    Baselines,
    BiasReport,
    Overall,
    ReportData,
    ReportMeta,
    ReportSettings,
)
from service.fairness.schema_base import Rule
from service.fairness.schema_verdicts import AtThreshold
from service.fairness.strata import functional, group_reports, strata
from service.fairness.unseen import unseen_rows

__all__ = ["BiasReport", "Criteria", "ReportContext", "ReportMeta", "ScoredData", "build_report"]

NO_CONTEXT = ReportContext()


def build_report(
    data: ScoredData, required: Criteria, meta: ReportMeta, context: ReportContext = NO_CONTEXT
) -> BiasReport:
    """Return the bias report on `data.tuned`, with the base model beside it if it was scored.

    `meta.threshold` names the decision rule of the headline figures: argmax, the threshold fitted
    on `data.validation`, or `required.threshold`. The report holds the verdicts under every rule.

    Raises ValueError if the confidence is not in [0.5, 1), if the base model was scored on other
    rows, if the split or the step of the predictions is not the one in `meta`, or if the rule in
    `meta` has no threshold or no rows to fit one on.
    """
    rates.check_confidence(required.confidence)
    check_inputs(data, meta, required)
    tuned, positive_label = data.tuned, required.positive_label
    decisions = rules.apply_rules(
        binary_predictions(tuned, positive_label), data.validation, required
    )
    split = Split(
        truth=equal(tuned.labels, positive_label),
        tuned=decisions[meta.threshold].predictions,
        base=None if data.base is None else binary_predictions(data.base, positive_label),
        groups=partition(tuned.groups, {cap.group for cap in required.caps}),
        sources=partition(tuned.sources),
        details=partition(tuned.details),
        confidence=required.confidence,
        min_support=required.min_support,
    )
    thresholds = _verdicts_by_rule(decisions, split, required, data.all_groups())
    headline = next(entry for entry in thresholds if entry.rule == meta.threshold)
    overall = _overall(headline, split, required.bootstrap_seed)
    groups = group_reports(split)
    report = BiasReport(
        meta=meta,
        shown=context.shown,
        base_shown=None if data.base is None else context.base_shown,
        settings=ReportSettings(
            positive_label=positive_label,
            confidence=required.confidence,
            min_support=required.min_support,
            threshold=headline.threshold,
            bootstrap_seed=required.bootstrap_seed,
        ),
        data=ReportData(
            rows=len(tuned),
            positives=int(split.truth.sum()),
            negatives=int((~split.truth).sum()),
            without_label=context.without_label,
            without_group=sum(group is None for group in tuned.groups),
            labels=dict(sorted(Counter(tuned.labels).items())),
            **_seen(data),
        ),
        success=criteria.success(overall.tuned, overall.base, required.min_f1, meta),
        overall=overall,
        groups=groups,
        by_source=strata(split, split.sources),
        by_detail=strata(split, split.details),
        functional=functional(split, tuned.labels),
        parity=parity_report(groups, required.confidence, required.bootstrap_seed),
        before_after=before_after(split),
        baselines=_baselines(tuned.groups, split, data.train_counts, positive_label),
        caps=headline.caps,
        caps_verdict=headline.caps_verdict,
        min_f1=headline.min_f1,
        unseen=unseen_rows(data, split, decisions[meta.threshold], required),
        thresholds=thresholds,
        curves=curves(split, overall.tuned.calibration_error),
        worst_mistakes=worst_mistakes(tuned, positive_label, split.truth, split.tuned),
        format_sample=context.format_sample,
        warnings=(),
    )
    warnings = report_warnings(report, split, data, context)
    return report.model_copy(update={"warnings": tuple(warnings)})


def _seen(data: ScoredData) -> dict[str, int | None]:
    """Return the numbers of rows that shaped the model under report; None: unknown."""
    if data.seen is None:
        return {"seen_in_training": None, "seen_in_validation": None}
    ids = set(data.tuned.ids)
    return {
        "seen_in_training": len(ids & data.seen.in_training),
        "seen_in_validation": len(ids & data.seen.in_validation),
    }


def _verdicts_by_rule(
    decisions: dict[Rule, rules.Decision],
    split: Split,
    required: Criteria,
    dataset_groups: Collection[str],
) -> tuple[AtThreshold, ...]:
    """Return the verdicts under each rule: argmax, fitted, then given if there is a threshold."""
    confidence, seed = required.confidence, required.bootstrap_seed
    # Every rule uses the same scores, hence the same AUC and calibration error.
    scored = score_figures(split.truth, split.tuned.scores, confidence, seed)
    entries = [
        rules.verdict_under(
            decision,
            split,
            overall_figures(split.truth, decision.predictions, scored, confidence, seed),
            required,
            dataset_groups,
        )
        for decision in decisions.values()
    ]
    if "fitted" not in decisions:
        entries.insert(1, rules.not_fitted(required))
    return tuple(entries)


def _overall(headline: AtThreshold, split: Split, seed: int) -> Overall:
    if split.base is None:
        return Overall(tuned=headline.overall, base=None, difference=None)
    scored = score_figures(split.truth, split.base.scores, split.confidence, seed)
    base = overall_figures(split.truth, split.base, scored, split.confidence, seed)
    return Overall(
        tuned=headline.overall,
        base=base,
        difference=metrics.differences(headline.overall, base),
    )


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
        majority = metrics.unknown_metrics("the labels of the training split are not known")
        return Baselines(always_positive=always, group_majority=majority)
    called = np.array(group_majority(groups, train, positive_label))
    return Baselines(
        always_positive=always,
        group_majority=metrics.overall_metrics(truth, called, None, split.confidence),
        majority_positive={name: bool(called[rows[0]]) for name, rows in split.groups.rows.items()},
    )
