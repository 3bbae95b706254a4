"""The form of a comparison, version 1: several models on the same rows, side by side.

As in `schema`: a figure that cannot be computed is null and says why, rates are fractions in
[0, 1], counts are rows, and labels are the positive one against the rest.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.fairness.schema import ReportWarning
from service.fairness.schema_base import Confusion, Estimate, Part, RateEstimate, Verdict
from service.fairness.schema_detail import CapVerdict, GroupRates, Metric, Paired, Rule

__all__ = ["Compared", "ComparedCap", "Comparison", "ComparisonData", "Pair", "WorstExcess"]


class ComparedCap(Part):
    """A cap that every model was held against."""

    group: str = Field(description="The group that the cap is about.")
    metric: Metric = Field(description="Which error rate is capped.")
    max: float = Field(ge=0, le=1, description="The cap, a fraction.")


class WorstExcess(Part):
    """How far a model is over the cap that it keeps worst; point estimates."""

    value: float | None = Field(
        description="The largest observed rate minus cap over the caps that apply; negative where "
        "all are kept; null when none applies."
    )
    group: str | None = Field(description="That cap's group; of equals the first as asked for.")
    metric: Metric | None = Field(description="That cap's error rate.")
    reason: str | None = Field(default=None, description="Why the value is null.")


class Compared(Part):
    """One model: its headline figures on the rows that all have in common."""

    entry: str = Field(description="As it was asked for: a run's id, or run@step. Unique.")
    run_id: str | None = Field(description="The run; null outside of one.")
    step: int | None = Field(description="Step of the checkpoint; null: the run's own adapter.")
    evaluation_id: str | None = Field(description="The stored evaluation that it was read from.")
    name: str = Field(description="The run's name.")
    base_model: str = Field(description="Name of the base model.")
    template: str = Field(description="Prompt template that the rows were scored under.")
    rule: Rule = Field(description="How scores became predictions.")
    threshold: float | None = Field(
        description="The score from which a row is called positive; null: argmax."
    )
    confusion: Confusion = Field(description="Counts of all rows.")
    f1: Estimate = Field(description="2TP/(2TP+FP+FN).")
    accuracy: RateEstimate = Field(description="Rows called right among all rows.")
    auc: Estimate = Field(description="Area under the ROC curve of the positive label's score.")
    fpr: RateEstimate = Field(description="Rows called positive among the negative.")
    fnr: RateEstimate = Field(description="Rows called negative among the positive.")
    groups: tuple[GroupRates, ...] = Field(description="The error rates by group, by name.")
    caps: tuple[CapVerdict, ...] = Field(description="Every cap with its verdict, as asked for.")
    caps_verdict: Verdict = Field(description="As in the bias report.")
    worst_excess: WorstExcess = Field(description="How far it is over the cap kept worst.")
    pareto: bool = Field(
        description="Whether no other model has an F1 at least as high and a worst excess at most "
        "as large, and one of the two better. Models that are equal in both are on the front "
        "together; one without either figure is not. Without caps the F1 alone counts."
    )


class Pair(Part):
    """Two of the models on the same rows."""

    first: str = Field(description="The entry of the one.")
    second: str = Field(description="The entry of the other, later in the list.")
    paired: Paired = Field(description="Row by row; p_holm is over all pairs.")


class ComparisonData(Part):
    """The rows that all models answered."""

    dataset_hash: str | None = Field(
        description="Content hash of the dataset that they are from; null outside of the service."
    )
    split: str = Field(description="Split of the dataset.")
    rows: int = Field(ge=1, description="Labelled rows, each of them counted.")
    positives: int = Field(ge=0, description="Rows with the positive label.")
    negatives: int = Field(ge=0, description="Rows with another label.")


class Comparison(Part):
    """Several models on the same rows: figures, paired tests, F1 against the caps."""

    schema_version: Literal[1] = Field(default=1, description="Version of this form.")
    data: ComparisonData = Field(description="The rows that all models answered.")
    positive_label: str = Field(description="The label that counts as positive.")
    confidence: float = Field(ge=0.5, lt=1, description="Of intervals and one-sided limits.")
    caps: tuple[ComparedCap, ...] = Field(description="What every model was held against.")
    min_f1: float | None = Field(description="The least F1 asked for; null: none was.")
    settings_of: str | None = Field(
        description="The run whose caps, min_f1 and confidence these are: the first one named."
    )
    entries: tuple[Compared, ...] = Field(description="The models, as asked for.")
    pairs: tuple[Pair, ...] = Field(description="Every two of them, in the order of the entries.")
    warnings: tuple[ReportWarning, ...] = Field(description="What a reader must know.")
