"""Comparison, schema version 1: several models on the same rows.

A figure that cannot be computed is null, with a reason. Rates are fractions in [0, 1], counts are
rows, and labels are the positive label versus all others.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.fairness.schema import ReportWarning
from service.fairness.schema_base import (
    Confusion,
    Estimate,
    Metric,
    RateEstimate,
    ReportModel,
    Rule,
    Verdict,
)
from service.fairness.schema_verdicts import CapVerdict, GroupRates, Paired

__all__ = ["Compared", "ComparedCap", "Comparison", "ComparisonData", "Pair", "WorstExcess"]


class ComparedCap(ReportModel):
    """A cap that every model is compared with."""

    group: str = Field(description="Group whose rate is capped.")
    metric: Metric = Field(description="Error rate that is capped.")
    max: float = Field(ge=0, le=1, description="Cap on the rate, a fraction.")


class WorstExcess(ReportModel):
    """Largest excess of a model's rates over the caps, by point estimates."""

    value: float | None = Field(
        description="Largest observed rate minus cap over the applicable caps; negative if every "
        "cap is satisfied; null if no cap applies."
    )
    group: str | None = Field(description="Group of that cap; the first one if several are equal.")
    metric: Metric | None = Field(description="Error rate of that cap.")
    reason: str | None = Field(default=None, description="Reason for a null value.")


class Compared(ReportModel):
    """Headline figures of one model on the common rows."""

    entry: str = Field(description="Unique name of the model in the request: run id or run@step.")
    run_id: str | None = Field(description="Id of the run; null outside of a run.")
    step: int | None = Field(
        description="Step of the checkpoint; null for the final adapter of the run."
    )
    evaluation_id: str | None = Field(
        description="Id of the stored evaluation with the predictions."
    )
    name: str = Field(description="Name of the run.")
    base_model: str = Field(description="Name of the base model.")
    template: str = Field(description="Prompt template with which the rows were scored.")
    rule: Rule = Field(description="Decision rule of the figures.")
    threshold: float | None = Field(
        description="Minimum score of a predicted positive; null for argmax."
    )
    confusion: Confusion = Field(description="Confusion matrix over all rows.")
    f1: Estimate = Field(description="Harmonic mean of precision and recall: 2TP/(2TP+FP+FN).")
    accuracy: RateEstimate = Field(description="Share of all rows that are predicted correctly.")
    auc: Estimate = Field(description="Area under the ROC curve of the positive label's score.")
    fpr: RateEstimate = Field(
        description="False-positive rate: share of the negatives that are predicted positive."
    )
    fnr: RateEstimate = Field(
        description="False-negative rate: share of the positives that are predicted negative."
    )
    groups: tuple[GroupRates, ...] = Field(description="Error rates by group, sorted by name.")
    caps: tuple[CapVerdict, ...] = Field(description="Verdict on every cap, in the given order.")
    caps_verdict: Verdict = Field(
        description="Verdict on all caps together, as in the bias report."
    )
    worst_excess: WorstExcess = Field(description="Largest excess over the caps.")
    pareto: bool = Field(
        description="True if the model is on the Pareto front: no other model has at least its F1 "
        "and at most its worst excess, and is better in one of the two. Models that are equal in "
        "both are on the front together; a model without either figure is not. Without caps, F1 "
        "alone decides."
    )


class Pair(ReportModel):
    """Two of the models on the same rows."""

    first: str = Field(description="Entry of the first model.")
    second: str = Field(description="Entry of the second model, which is later in the list.")
    paired: Paired = Field(
        description="Test of the two models, row by row; p_holm is adjusted over all pairs."
    )


class ComparisonData(ReportModel):
    """Rows that all models predicted."""

    dataset_hash: str | None = Field(
        description="Content hash of the dataset; null outside of the service."
    )
    split: str = Field(description="Split of the dataset.")
    rows: int = Field(ge=1, description="Number of rows with a label.")
    positives: int = Field(ge=0, description="Rows with the positive label.")
    negatives: int = Field(ge=0, description="Rows with another label.")


class Comparison(ReportModel):
    """Several models on the same rows: metrics, verdicts on caps, and paired tests."""

    schema_version: Literal[1] = Field(default=1, description="Version of this schema.")
    data: ComparisonData = Field(description="Rows that all models predicted.")
    positive_label: str = Field(description="Label that counts as positive.")
    confidence: float = Field(
        ge=0.5, lt=1, description="Confidence of the intervals and of each one-sided limit."
    )
    caps: tuple[ComparedCap, ...] = Field(description="Caps that every model is compared with.")
    min_f1: float | None = Field(description="Required minimum F1; null if there is none.")
    settings_of: str | None = Field(
        description="Id of the run whose caps, min_f1 and confidence are used: the first one."
    )
    entries: tuple[Compared, ...] = Field(description="The models, in the requested order.")
    pairs: tuple[Pair, ...] = Field(
        description="Every pair of models, in the order of the entries."
    )
    warnings: tuple[ReportWarning, ...] = Field(
        description="Reasons why figures may be less reliable than they look."
    )
