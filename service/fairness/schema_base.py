"""Basic models of a bias report: counts, rates with intervals, and other figures."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Metric = Literal["fpr", "fnr"]
Rule = Literal["argmax", "fitted", "given"]
Verdict = Literal["pass", "fail", "inconclusive", "not_applicable"]

NO_INTERVAL_COMPUTED = "no interval is computed for this figure"
DRAWS_AGREE = "every bootstrap resample gives the same value, so there is no interval"
"""Reasons for the lack of an interval of a figure that is not null."""


class ReportModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Estimate(ReportModel):
    """A figure that is not a share of rows, possibly with a bootstrap interval."""

    value: float | None = Field(description="The figure; null if it cannot be computed.")
    lower: float | None = Field(default=None, description="Lower end of the interval, if any.")
    upper: float | None = Field(default=None, description="Upper end of the interval, if any.")
    reason: str | None = Field(default=None, description="Reason for a null value.")
    interval_reason: str | None = Field(
        default=None, description="Reason for the lack of an interval if the value is not null."
    )


class RateEstimate(ReportModel):
    """A share of rows with its two-sided Wilson score interval."""

    value: float | None = Field(
        description="numerator / denominator, a fraction; null if the denominator is 0."
    )
    numerator: int = Field(ge=0, description="Number of rows with the counted outcome.")
    denominator: int = Field(ge=0, description="Number of rows among which they are counted.")
    lower: float | None = Field(description="Lower end of the two-sided Wilson interval.")
    upper: float | None = Field(description="Upper end of the two-sided Wilson interval.")
    reason: str | None = Field(default=None, description="Reason for a null value.")


class Confusion(ReportModel):
    """Confusion matrix, positive label versus all others."""

    true_positive: int = Field(ge=0, description="Positive rows that are predicted positive.")
    true_negative: int = Field(ge=0, description="Negative rows that are predicted negative.")
    false_positive: int = Field(ge=0, description="Negative rows that are predicted positive.")
    false_negative: int = Field(ge=0, description="Positive rows that are predicted negative.")


class OverallMetrics(ReportModel):
    """Metrics of a model over all rows of the split."""

    confusion: Confusion | None = Field(
        description="Confusion matrix; null if there are no predictions."
    )
    accuracy: RateEstimate = Field(description="Share of all rows that are predicted correctly.")
    precision: RateEstimate = Field(
        description="Share of the predicted positives that are positive."
    )
    recall: RateEstimate = Field(description="Share of the positives that are predicted positive.")
    fpr: RateEstimate = Field(
        description="False-positive rate: share of the negatives that are predicted positive."
    )
    fnr: RateEstimate = Field(
        description="False-negative rate: share of the positives that are predicted negative."
    )
    f1: Estimate = Field(description="Harmonic mean of precision and recall: 2TP/(2TP+FP+FN).")
    auc: Estimate = Field(description="Area under the ROC curve of the positive label's score.")
    calibration_error: Estimate = Field(
        description="Expected calibration error of the positive label's probability over 15 bins "
        "of equal width (Guo et al. 2017, equation 3)."
    )
