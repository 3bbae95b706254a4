"""The whole verdict under each way of turning scores into predictions: argmax, fitted, given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.fairness import criteria, metrics, rates, verdicts
from service.fairness.baselines import LabelCounts
from service.fairness.columns import Answers, Split, at_threshold
from service.fairness.predictions import Predictions
from service.fairness.schema import OverallMetrics
from service.fairness.schema_detail import AtThreshold, GroupRates, Rule, ThresholdFit
from service.fairness.thresholds import fit_threshold

NOT_FITTED = "no labelled validation rows were given to fit a threshold on"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the model is held to."""

    caps: Sequence[verdicts.Cap]
    min_f1: float | None
    train: LabelCounts
    """Rows of the training split; says which groups the data has."""


@dataclass(frozen=True, slots=True)
class Decided:
    """One rule, with what it came to on the rows under report."""

    rule: Rule
    answers: Answers
    threshold: float | None = None
    fit: ThresholdFit | None = None


def decided(
    argmax: Answers,
    given: float | None,
    validation: Predictions | None,
    positive_label: str,
    asked: Asked,
) -> dict[Rule, Decided]:
    """The rules that there are answers under: fitted only with rows to fit on, given if asked."""
    made: dict[Rule, Decided] = {"argmax": Decided("argmax", argmax)}
    if validation is not None:
        threshold, fit = fit_threshold(validation, positive_label, asked.caps, asked.min_f1)
        answers = at_threshold(argmax, threshold)
        made["fitted"] = Decided("fitted", answers, threshold, fit)
    if given is not None:
        made["given"] = Decided("given", at_threshold(argmax, given), given)
    return made


def verdict_under(
    decision: Decided, split: Split, overall: OverallMetrics, asked: Asked
) -> AtThreshold:
    """Figures, caps and least F1 under one rule; `overall` are all rows' figures under it."""
    groups = []
    for name, rows in split.groups.rows.items():
        counts = rates.confusion(split.truth[rows], decision.answers.called[rows])
        groups.append(
            GroupRates(
                group=name,
                fpr=rates.fpr(counts, split.confidence),
                fnr=rates.fnr(counts, split.confidence),
            )
        )
    judged = criteria.judge(asked.caps, groups, asked.train, split.confidence)
    return AtThreshold(
        rule=decision.rule,
        threshold=decision.threshold,
        fit=decision.fit,
        overall=overall,
        groups=tuple(groups),
        caps=judged,
        caps_verdict=verdicts.summarise(judged),
        min_f1=criteria.min_f1(asked.min_f1, overall),
    )


def not_fitted(asked: Asked) -> AtThreshold:
    """What stands in place of the fitted threshold where there was nothing to fit it on."""
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
        min_f1=criteria.min_f1(asked.min_f1, overall),
    )
