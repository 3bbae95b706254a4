"""What the parts of a bias report are made of: counts, rates with intervals, figures."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Verdict = Literal["pass", "fail", "inconclusive", "not_applicable"]

NO_INTERVAL_MADE = "no interval is computed for this figure"
DRAWS_AGREE = "the figure is the same in every bootstrap draw, which cannot say how sure it is"
"""Reasons why a figure that is not null has no interval."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Estimate(Part):
    """A figure that is no share of rows, where it pays with a bootstrap interval of its rows."""

    value: float | None = Field(description="The figure, or null when it cannot be computed.")
    lower: float | None = Field(default=None, description="Lower end of the interval, if any.")
    upper: float | None = Field(default=None, description="Upper end of the interval, if any.")
    reason: str | None = Field(default=None, description="Why the value is null.")
    interval_reason: str | None = Field(
        default=None, description="Why the ends are null although the value is not."
    )


class RateEstimate(Part):
    """A share of rows with its two-sided Wilson score interval."""

    value: float | None = Field(description="numerator / denominator, a fraction; null over 0.")
    numerator: int = Field(ge=0, description="Rows counted.")
    denominator: int = Field(ge=0, description="Rows they are counted among.")
    lower: float | None = Field(description="Lower end of the two-sided Wilson interval.")
    upper: float | None = Field(description="Upper end of the two-sided Wilson interval.")
    reason: str | None = Field(default=None, description="Why the value is null.")


class Confusion(Part):
    """Rows by what they are and what they were called, positive label against the rest."""

    true_positive: int = Field(ge=0, description="Positive rows called positive.")
    true_negative: int = Field(ge=0, description="Negative rows called negative.")
    false_positive: int = Field(ge=0, description="Negative rows called positive.")
    false_negative: int = Field(ge=0, description="Positive rows called negative.")


class OverallMetrics(Part):
    """How well a model does over all rows of the split."""

    confusion: Confusion | None = Field(description="Counts; null when there are no predictions.")
    accuracy: RateEstimate = Field(description="Rows called right among all rows.")
    precision: RateEstimate = Field(description="Positive rows among those called positive.")
    recall: RateEstimate = Field(description="Rows called positive among the positive.")
    fpr: RateEstimate = Field(description="Rows called positive among the negative.")
    fnr: RateEstimate = Field(description="Rows called negative among the positive.")
    f1: Estimate = Field(description="Harmonic mean of precision and recall: 2TP/(2TP+FP+FN).")
    auc: Estimate = Field(description="Area under the ROC curve of the positive label's score.")
    calibration_error: Estimate = Field(
        description="Expected calibration error of the positive label's probability over 15 bins "
        "of equal width (Guo et al. 2017, equation 3)."
    )
