"""Decision rules (argmax, fitted threshold, given threshold) and the verdicts under each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from service.fairness import criteria, metrics, rates, verdicts
from service.fairness.columns import BinaryPredictions, Split, at_threshold
from service.fairness.criteria import Criteria
from service.fairness.predictions import Predictions
from service.fairness.schema import OverallMetrics
from service.fairness.schema_base import Rule
from service.fairness.schema_verdicts import AtThreshold, GroupRates, ThresholdFit
from service.fairness.thresholds import fit_threshold

NOT_FITTED = "there are no labelled validation predictions to fit a threshold on"


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision rule and the predictions that it gives on the evaluated rows."""

    rule: Rule
    predictions: BinaryPredictions
    threshold: float | None = None
    fit: ThresholdFit | None = None


def apply_rules(
    argmax: BinaryPredictions, validation: Predictions | None, required: Criteria
) -> dict[Rule, Decision]:
    """Return a decision for every rule that can be applied.

    The fitted rule needs validation predictions, the given rule a threshold in `required`.
    """
    decisions: dict[Rule, Decision] = {"argmax": Decision("argmax", argmax)}
    if validation is not None:
        threshold, fit = fit_threshold(
            validation, required.positive_label, required.caps, required.min_f1
        )
        decisions["fitted"] = Decision("fitted", at_threshold(argmax, threshold), threshold, fit)
    if required.threshold is not None:
        predictions = at_threshold(argmax, required.threshold)
        decisions["given"] = Decision("given", predictions, required.threshold)
    return decisions


def verdict_under(
    decision: Decision,
    split: Split,
    overall: OverallMetrics,
    required: Criteria,
    dataset_groups: Collection[str],
) -> AtThreshold:
    """Return the figures and verdicts under one rule; `overall` holds its figures on all rows.

    `dataset_groups` are the groups in any split of the dataset.
    """
    groups = []
    for name, rows in split.groups.rows.items():
        counts = rates.confusion(split.truth[rows], decision.predictions.called[rows])
        groups.append(
            GroupRates(
                group=name,
                fpr=rates.fpr(counts, split.confidence),
                fnr=rates.fnr(counts, split.confidence),
            )
        )
    cap_verdicts = criteria.judge_caps(required.caps, groups, dataset_groups, split.confidence)
    return AtThreshold(
        rule=decision.rule,
        threshold=decision.threshold,
        fit=decision.fit,
        overall=overall,
        groups=tuple(groups),
        caps=cap_verdicts,
        caps_verdict=verdicts.summarise(cap_verdicts),
        min_f1=criteria.min_f1(required.min_f1, overall.f1),
    )


def not_fitted(required: Criteria) -> AtThreshold:
    """Return the entry of the fitted rule for a report without validation predictions."""
    overall = metrics.unknown_metrics(NOT_FITTED)
    return AtThreshold(
        rule="fitted",
        threshold=None,
        reason=NOT_FITTED,
        fit=None,
        overall=overall,
        groups=(),
        caps=(),
        caps_verdict="not_applicable",
        min_f1=criteria.min_f1(required.min_f1, overall.f1),
    )
