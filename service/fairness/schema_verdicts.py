"""Models of a bias report for verdicts: caps, minimum F1, thresholds, and paired tests.

A figure that cannot be computed is null, with a reason. Rates are fractions in [0, 1], counts are
rows, and labels are the positive label versus all others.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.fairness.schema_base import (
    Estimate,
    Metric,
    OverallMetrics,
    RateEstimate,
    ReportModel,
    Rule,
    Verdict,
)


class Paired(ReportModel):
    """Two models on the same rows: McNemar's exact test of the rows that only one got right."""

    rows: int = Field(ge=0, description="Rows that both models predicted.")
    both_right: int = Field(ge=0, description="Rows that both models predict correctly.")
    both_wrong: int = Field(ge=0, description="Rows that both models predict incorrectly.")
    only_first: int = Field(
        ge=0, description="Rows that only the first model (base) predicts correctly."
    )
    only_second: int = Field(
        ge=0, description="Rows that only the second model (tuned) predicts correctly."
    )
    p_value: float = Field(
        ge=0,
        le=1,
        description="P-value of the two-sided exact binomial test of only_first versus "
        "only_second; 1 if both are 0.",
    )
    p_holm: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="P-value adjusted for the number of tests (Holm 1979); null for a single test.",
    )


class GroupPaired(ReportModel):
    """Base model versus tuned model on the rows of one group."""

    group: str = Field(description="Name of the group in the data.")
    paired: Paired = Field(description="Test of base versus tuned model on the group.")


class BeforeAfter(ReportModel):
    """Base model versus tuned model, row by row."""

    overall: Paired = Field(description="Test over all rows.")
    groups: tuple[GroupPaired, ...] = Field(
        description="Test by group; p_holm is adjusted over the groups."
    )


class CapVerdict(ReportModel):
    """Verdict on a cap on a group's error rate.

    pass: the one-sided Clopper-Pearson upper limit is below the cap. fail: the lower limit is above
    the cap. inconclusive: neither. not_applicable: no split of the dataset has such a group.
    """

    group: str = Field(description="Group whose rate is capped.")
    metric: Metric = Field(description="Error rate that is capped.")
    max: float = Field(ge=0, le=1, description="Cap on the rate, a fraction.")
    observed: float | None = Field(description="Observed rate, a fraction.")
    numerator: int = Field(ge=0, description="Number of errors.")
    denominator: int = Field(
        ge=0, description="Number of the group's negatives (fpr) or positives (fnr)."
    )
    lower: float | None = Field(description="One-sided lower confidence limit.")
    upper: float | None = Field(description="One-sided upper confidence limit.")
    verdict: Verdict = Field(description="Verdict at the confidence of the report.")
    needed_further: int | None = Field(
        description="For an inconclusive verdict: the minimum number of further negatives (fpr) or "
        "positives (fnr), at the observed rate, that would settle it; null if no number would."
    )
    would_settle: Literal["pass", "fail"] | None = Field(
        description="Verdict that these further rows would give."
    )
    reason: str | None = Field(description="Reason for a null rate or needed_further.")


class MinF1(ReportModel):
    """Comparison of the F1 point estimate with the required minimum."""

    min_f1: float = Field(ge=0, le=1, description="Required minimum F1.")
    value: float | None = Field(description="F1 of the model.")
    verdict: Literal["met", "not_met"] | None = Field(description="met if value >= min_f1.")
    reason: str | None = Field(default=None, description="Reason for a null verdict.")


class ThresholdFit(ReportModel):
    """Fit of a threshold: point estimates on the validation split alone."""

    split: str = Field(description="Split on which the threshold was fitted.")
    rows: int = Field(ge=1, description="Number of labelled rows used for the fit.")
    f1: float | None = Field(description="F1 at the threshold on these rows.")
    feasible: bool = Field(description="True if every cap and min_f1 are satisfied on these rows.")
    violation: float = Field(
        ge=0,
        description="Total excess over the caps plus the shortfall of F1 on these rows; 0 if "
        "feasible.",
    )


class GroupRates(ReportModel):
    """Error rates of one group."""

    group: str = Field(description="Name of the group in the data.")
    fpr: RateEstimate = Field(description="False-positive rate of the group.")
    fnr: RateEstimate = Field(description="False-negative rate of the group.")


class AtThreshold(ReportModel):
    """Figures and verdicts under one decision rule."""

    rule: Rule = Field(
        description="Decision rule: argmax (the most probable label), fitted or given threshold."
    )
    threshold: float | None = Field(
        description="Minimum score of a predicted positive; null for argmax, or if no threshold "
        "was fitted."
    )
    reason: str | None = Field(default=None, description="Reason why no threshold was fitted.")
    fit: ThresholdFit | None = Field(
        description="Fit of the threshold; null for the other decision rules."
    )
    overall: OverallMetrics = Field(description="Metrics over all rows.")
    groups: tuple[GroupRates, ...] = Field(description="Error rates by group, sorted by name.")
    caps: tuple[CapVerdict, ...] = Field(description="Verdict on every cap.")
    caps_verdict: Verdict = Field(description="Verdict on all caps together, as in the report.")
    min_f1: MinF1 | None = Field(
        description="Comparison with the required minimum F1; null if there is none."
    )


class UnseenRows(ReportModel):
    """Verdicts on the evaluated rows whose text is in neither split that shaped the model.

    They are by the decision rule of the report. A release needs them as well as those on all rows.
    """

    rows: int = Field(ge=0, description="Number of such rows.")
    f1: Estimate = Field(description="F1 on these rows.")
    caps: tuple[CapVerdict, ...] = Field(description="Verdict on every cap on these rows.")
    caps_verdict: Verdict = Field(description="Verdict on all caps together on these rows.")
    min_f1: MinF1 | None = Field(
        description="Comparison with the required minimum F1; null if there is none."
    )


class Success(ReportModel):
    """Success criterion of the original scripts.

    It compares the tuned model under its (short) template with the base model under its own, which
    may be the long policy template (evaluation.baseline_template).
    """

    tuned_template: str = Field(description="Template of the model under report.")
    base_template: str | None = Field(
        description="Template of the base model; null if it was not scored."
    )
    tuned_f1: float | None = Field(description="F1 of the model under report.")
    base_f1: float | None = Field(description="F1 of the base model under its template.")
    difference: float | None = Field(description="tuned_f1 minus base_f1.")
    min_f1: float | None = Field(description="Required minimum F1; null if there is none.")
    verdict: Literal["met", "not_met"] | None = Field(
        description="met if tuned_f1 is at least min_f1 (if there is one) and above base_f1; null "
        "if this cannot be determined."
    )
    reason: str | None = Field(default=None, description="Reason for a null verdict.")
