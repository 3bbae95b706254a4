"""Bias report, schema version 2: the format that the API returns and that is stored.

A figure that cannot be computed is null, with a reason beside it; 0 is always a measured 0. Rates
and probabilities are fractions in [0, 1], counts are rows. Data with more than two labels is
reduced to the positive label versus all others first. The headline figures (overall, groups, caps,
…) use the decision rule in `meta.threshold`; `thresholds` has the verdicts under every rule.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.fairness.schema_base import (
    Confusion,
    Estimate,
    Metric,
    OverallMetrics,
    RateEstimate,
    ReportModel,
    Rule,
    Verdict,
)
from service.fairness.schema_curves import Curves, FormatSample, Mistake
from service.fairness.schema_groups import (
    Calibration,
    Functionality,
    GroupMetrics,
    GroupReport,
    ParityReport,
    Stratum,
)
from service.fairness.schema_verdicts import (
    AtThreshold,
    BeforeAfter,
    CapVerdict,
    MinF1,
    Success,
    UnseenRows,
)

__all__ = [
    "AtThreshold",
    "Baselines",
    "BiasReport",
    "Calibration",
    "CapVerdict",
    "Confusion",
    "Differences",
    "Estimate",
    "FormatSample",
    "GroupMetrics",
    "GroupReport",
    "Metric",
    "MinF1",
    "Overall",
    "OverallMetrics",
    "RateEstimate",
    "ReportData",
    "ReportMeta",
    "ReportSettings",
    "ReportWarning",
    "Shown",
    "UnseenRows",
    "Verdict",
]


class Differences(ReportModel):
    """Tuned minus base for each metric; null if either is null."""

    accuracy: Estimate = Field(description="Difference of the accuracies.")
    precision: Estimate = Field(description="Difference of the precisions.")
    recall: Estimate = Field(description="Difference of the recalls.")
    fpr: Estimate = Field(description="Difference of the false-positive rates.")
    fnr: Estimate = Field(description="Difference of the false-negative rates.")
    f1: Estimate = Field(description="Difference of the F1 scores.")
    auc: Estimate = Field(description="Difference of the areas under the ROC curve.")
    calibration_error: Estimate = Field(
        description="Difference of the expected calibration errors."
    )


class Overall(ReportModel):
    """Metrics over the whole split, before and after training."""

    tuned: OverallMetrics = Field(description="Metrics of the model under report.")
    base: OverallMetrics | None = Field(
        description="Metrics of the base model; null if it was not scored."
    )
    difference: Differences | None = Field(
        description="Tuned minus base; null if the base model was not scored."
    )


class Baselines(ReportModel):
    """Metrics of trivial baselines on the same rows."""

    always_positive: OverallMetrics = Field(
        description="Metrics of predicting every row as positive."
    )
    group_majority: OverallMetrics = Field(
        description="Metrics of predicting each row as the majority of its group's training rows, "
        "or of the whole training split if the group is missing, tied or absent there. A tie of "
        "the whole split is positive."
    )
    majority_positive: dict[str, bool] | None = Field(
        default=None,
        description="By group, true if group_majority predicts its rows as positive; null if the "
        "labels of the training split are not known.",
    )


class ReportWarning(ReportModel):
    """A reason why figures may be less reliable than they look."""

    code: str = Field(description="Stable code of the warning.")
    detail: str = Field(description="The warning as a sentence.")


class Shown(ReportModel):
    """Prompt of a model."""

    system: str | None = Field(
        description="System turn of the template; null if it has none, or if the rows are chats."
    )
    user: str | None = Field(
        description="User turn of the template, with $text for the row's text; null if the rows "
        "are chats."
    )
    completion: str | None = Field(
        description="Answer of the template, with $label for the label's word; null if the rows "
        "are chats."
    )
    group: bool = Field(description="True if the prompt states the row's group.")
    truncated: int | None = Field(
        description="Number of rows of the split whose text was truncated; null if unknown."
    )


class ReportMeta(ReportModel):
    """Origin of the predictions."""

    run_id: str | None = Field(default=None, description="Id of the run; null outside of a run.")
    evaluation_id: str | None = Field(
        default=None,
        description="Id of the stored evaluation; null in the report that a run writes when it "
        "ends, before its evaluations have ids.",
    )
    base_model: str = Field(description="Name of the base model.")
    target: Literal["base", "adapter", "checkpoint", "merged"] = Field(
        default="adapter", description="Kind of model under report."
    )
    template: str = Field(description="Prompt template of the model under report.")
    base_template: str | None = Field(
        default=None, description="Prompt template of the base model; null if it was not scored."
    )
    dataset_id: str | None = Field(default=None, description="Id of the dataset of the rows.")
    split: str = Field(description="Split of the rows.")
    max_samples: int | None = Field(
        default=None, description="Maximum number of rows that were scored; null if all were."
    )
    checkpoint_step: int | None = Field(default=None, description="Optimizer step of the weights.")
    threshold: Rule = Field(
        default="argmax",
        description="Decision rule of the headline figures. The base model's figures always use "
        "argmax, because no threshold is fitted for it.",
    )
    exploratory: bool = Field(
        default=False,
        description="True if the settings, the model or the split differ from those that certify "
        "the run. An exploratory report does not gate a release.",
    )


class ReportSettings(ReportModel):
    """Settings of the report."""

    positive_label: str = Field(description="Label that counts as positive.")
    confidence: float = Field(
        ge=0.5, lt=1, description="Confidence of the intervals and of each one-sided limit."
    )
    min_support: int = Field(
        ge=0,
        description="Minimum number of negatives (FPR) or positives (FNR) behind a rate that "
        "is not a small sample.",
    )
    threshold: float | None = Field(
        default=None, description="Minimum score of a predicted positive; null for argmax."
    )
    bootstrap_seed: int = Field(default=0, description="Seed of the bootstrap resamples.")


class ReportData(ReportModel):
    """Rows on which the figures were computed."""

    rows: int = Field(ge=1, description="Number of scored rows with a label.")
    positives: int = Field(ge=0, description="Rows with the positive label.")
    negatives: int = Field(ge=0, description="Rows with another label.")
    without_label: int | None = Field(
        default=None,
        ge=0,
        description="Scored rows without a label, which no figure includes; null if unknown.",
    )
    without_group: int = Field(
        ge=0, description="Rows without a group, which only the overall figures include."
    )
    labels: dict[str, int] = Field(description="Number of rows by label, as in the data.")
    seen_in_training: int | None = Field(
        default=None,
        ge=0,
        description="Rows whose text is among the rows that the model was trained on, in this "
        "dataset or another; null if unknown.",
    )
    seen_in_validation: int | None = Field(
        default=None,
        ge=0,
        description="Further rows whose text is among the validation rows of the run, on which "
        "the checkpoint and the threshold may have been chosen; null if unknown.",
    )


class BiasReport(ReportModel):
    """Bias report of a classifier: metrics overall and by group, their uncertainty, and verdicts
    on caps.
    """

    schema_version: Literal[2] = Field(default=2, description="Version of this schema.")
    meta: ReportMeta = Field(description="Origin of the predictions.")
    shown: Shown | None = Field(
        description="Prompt of the model under report; null if it is not known."
    )
    base_shown: Shown | None = Field(
        default=None,
        description="Prompt of the base model; null if it is not known or was not scored.",
    )
    settings: ReportSettings = Field(description="Settings of the report.")
    data: ReportData = Field(description="Rows on which the figures were computed.")
    success: Success = Field(description="Success criterion of the original scripts.")
    overall: Overall = Field(description="Metrics over all rows, before and after training.")
    groups: tuple[GroupReport, ...] = Field(description="Metrics by group, sorted by name.")
    by_source: tuple[Stratum, ...] = Field(
        description="Metrics by source, sorted by name; empty if no row has a source."
    )
    by_detail: tuple[Stratum, ...] = Field(
        description="Metrics by finer label, sorted by name; empty if no row has one."
    )
    functional: tuple[Functionality, ...] = Field(
        description="Accuracy by finer label and group; empty if no row has a finer label."
    )
    parity: ParityReport | None = Field(
        description="Differences between the groups; null if there are fewer than two groups."
    )
    before_after: BeforeAfter | None = Field(
        description="Base model versus tuned model, row by row; null if the base model was not "
        "scored."
    )
    baselines: Baselines = Field(description="Metrics of trivial baselines.")
    caps: tuple[CapVerdict, ...] = Field(description="Verdict on every cap, in the given order.")
    caps_verdict: Verdict = Field(
        description="Verdict on all caps: fail if any cap fails, pass if every applicable cap "
        "passes, not_applicable if no cap applies, otherwise inconclusive."
    )
    min_f1: MinF1 | None = Field(
        description="Comparison with the required minimum F1; null if there is none."
    )
    unseen: UnseenRows | None = Field(
        default=None,
        description="Verdicts on the rows whose text influenced the model in no way; null if "
        "these are all rows, or if it is unknown which they are.",
    )
    thresholds: tuple[AtThreshold, ...] = Field(
        description="Figures and verdicts under each decision rule: argmax, the fitted threshold, "
        "and the given threshold if there is one."
    )
    curves: Curves | None = Field(description="Data of the plots; null if there are no scores.")
    worst_mistakes: tuple[Mistake, ...] = Field(
        description="Incorrectly predicted rows, the most confident first; at most 30."
    )
    format_sample: FormatSample | None = Field(
        description="Freely generated answers on a sample of the rows; null if none were generated."
    )
    warnings: tuple[ReportWarning, ...] = Field(
        description="Reasons why figures may be less reliable than they look."
    )
