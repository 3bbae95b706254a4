"""Models of a bias report for plots and examples: curves, errors, and generated answers.

A figure that cannot be computed is null. Rates are fractions in [0, 1], counts are rows, and labels
are the positive label versus all others.
"""

from __future__ import annotations

from pydantic import Field

from service.fairness.schema_base import RateEstimate, ReportModel
from service.fairness.schema_groups import Calibration


class Sweep(ReportModel):
    """Figures over a grid of thresholds; the columns are parallel.

    A figure is null at thresholds where it cannot be computed.
    """

    thresholds: tuple[float, ...] = Field(description="Thresholds from 0 to 1, ascending.")
    f1: tuple[float | None, ...] = Field(description="F1 over all rows.")
    precision: tuple[float | None, ...] = Field(description="Precision over all rows.")
    recall: tuple[float | None, ...] = Field(description="Recall over all rows.")
    fpr: dict[str, tuple[float | None, ...]] = Field(description="False-positive rate by group.")
    fnr: dict[str, tuple[float | None, ...]] = Field(description="False-negative rate by group.")


class RocCurve(ReportModel):
    """ROC curve from (0, 0) to (1, 1), of at most about two hundred points."""

    group: str | None = Field(description="Name of the group; null for all rows.")
    fpr: tuple[float, ...] = Field(description="False-positive rates, ascending.")
    tpr: tuple[float, ...] = Field(description="True-positive rates, ascending.")


class ScoreHistogram(ReportModel):
    """Histogram of the scores in bins of equal width over [0, 1], closed on the right."""

    group: str | None = Field(description="Name of the group; null for all rows.")
    positives: tuple[int, ...] = Field(description="Number of positive rows per bin.")
    negatives: tuple[int, ...] = Field(description="Number of negative rows per bin.")


class Curves(ReportModel):
    """Data of the plots, for the model under report."""

    roc: tuple[RocCurve, ...] = Field(
        description="ROC curves of all rows and of each group; rows of a single class have none."
    )
    histograms: tuple[ScoreHistogram, ...] = Field(
        description="Score histograms of all rows and of each group."
    )
    calibration: Calibration = Field(description="Calibration over all rows.")
    sweep: Sweep = Field(description="Figures at other thresholds on the same rows.")


class Mistake(ReportModel):
    """A row that the model under report predicts incorrectly; its text is in the dataset."""

    id: str = Field(description="Id of the row in the dataset.")
    group: str | None = Field(description="Group of the row.")
    source: str | None = Field(description="Source of the row.")
    detail: str | None = Field(description="Finer label of the row.")
    label: str = Field(description="True label.")
    prediction: str = Field(description="Predicted label.")
    score: float = Field(ge=0, le=1, description="Probability of the positive label.")


class FormatSample(ReportModel):
    """Freely generated answers on a sample of the rows."""

    rows: int = Field(ge=1, description="Number of sampled rows, evenly spaced over the split.")
    outside: RateEstimate = Field(
        description="Share of the answers that are not exactly the answer of a label."
    )
    disagree: RateEstimate = Field(
        description="Share of the other answers whose label differs from the predicted label."
    )
    examples: tuple[str, ...] = Field(
        description="Examples of answers that are not a label, truncated."
    )
