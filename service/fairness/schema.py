"""The bias report's form, version 2: what the API answers and what is stored.

Every figure that cannot be computed is null and says why beside it; 0 always means a measured 0.
Rates and probabilities are fractions in [0, 1], counts are rows. Data with more than two labels is
reduced to the positive label against the rest before anything is counted. The headline figures
(overall, groups, caps, …) are those at the report's own threshold rule (meta.threshold);
`thresholds` has the verdicts under every rule.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.fairness.schema_base import (
    Confusion,
    Estimate,
    OverallMetrics,
    Part,
    RateEstimate,
    Verdict,
)
from service.fairness.schema_detail import (
    AtThreshold,
    BeforeAfter,
    Calibration,
    CapVerdict,
    Curves,
    FormatSample,
    Functionality,
    GroupMetrics,
    GroupReport,
    Metric,
    MinF1,
    Mistake,
    ParityReport,
    Rule,
    Stratum,
    Success,
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
    "Verdict",
]


class Differences(Part):
    """Tuned minus base, per figure; null where either is null."""

    accuracy: Estimate = Field(description="Difference of accuracies.")
    precision: Estimate = Field(description="Difference of precisions.")
    recall: Estimate = Field(description="Difference of recalls.")
    fpr: Estimate = Field(description="Difference of false-positive rates.")
    fnr: Estimate = Field(description="Difference of false-negative rates.")
    f1: Estimate = Field(description="Difference of F1 scores.")
    auc: Estimate = Field(description="Difference of areas under the ROC curve.")
    calibration_error: Estimate = Field(description="Difference of expected calibration errors.")


class Overall(Part):
    """The whole split, before and after training."""

    tuned: OverallMetrics = Field(description="The model under report.")
    base: OverallMetrics | None = Field(description="The base model; null when it was not scored.")
    difference: Differences | None = Field(description="Tuned minus base; null without a base.")


class Baselines(Part):
    """What no model at all would reach on the same rows."""

    always_positive: OverallMetrics = Field(description="Calling every row positive.")
    group_majority: OverallMetrics = Field(
        description="Calling every row by its group's majority in the training split, or the whole "
        "split's where the group is unknown there, tied or missing. A tie there is positive."
    )
    majority_positive: dict[str, bool] | None = Field(
        default=None,
        description="Whether group_majority calls a group's rows positive, by group; null where "
        "the training split's labels are not known.",
    )


class ReportWarning(Part):
    """Something a reader of the figures must know."""

    code: str = Field(description="A stable word for it.")
    detail: str = Field(description="A sentence.")


class Shown(Part):
    """What a model was given to read."""

    system: str | None = Field(description="The template's system turn; null: none, or chats.")
    user: str | None = Field(description="Its user turn, $text for the row; null: rows are chats.")
    completion: str | None = Field(description="Its answer, $label for the label's word.")
    group: bool = Field(description="Whether the prompt told the model the row's group.")
    truncated: int | None = Field(
        description="Rows of the split whose text's end was cut off to fit; null: not known."
    )


class ReportMeta(Part):
    """Where the predictions came from."""

    run_id: str | None = Field(default=None, description="The run; null outside of one.")
    evaluation_id: str | None = Field(
        default=None,
        description="The stored evaluation that it was made from; null in the report that a run "
        "writes at its end, before its evaluations have ids.",
    )
    base_model: str = Field(description="Name of the base model.")
    target: Literal["base", "adapter", "checkpoint", "merged"] = Field(
        default="adapter", description="The model under report."
    )
    template: str = Field(description="Prompt template of the model under report.")
    base_template: str | None = Field(
        default=None, description="Prompt template of the base model beside it, if it was scored."
    )
    dataset_id: str | None = Field(default=None, description="The dataset that the rows are from.")
    split: str = Field(description="Split that the rows are from.")
    max_samples: int | None = Field(
        default=None, description="Rows of the split scored at most; null: all of them."
    )
    checkpoint_step: int | None = Field(default=None, description="Optimizer step of the weights.")
    threshold: Rule = Field(
        default="argmax",
        description="How scores became predictions in the headline figures. The base model's, "
        "which nobody fitted anything to, are always by argmax.",
    )
    exploratory: bool = Field(
        default=False,
        description="Whether it was asked for with other settings than the run's, or of another "
        "model or split than the one that certifies the run; gates nothing.",
    )


class ReportSettings(Part):
    """What the figures were asked for with."""

    positive_label: str = Field(description="The label that counts as positive.")
    confidence: float = Field(ge=0.5, lt=1, description="Of intervals and one-sided limits.")
    min_support: int = Field(ge=0, description="Rows below which a group is called small.")
    threshold: float | None = Field(
        default=None, description="The score from which a row is called positive; null: argmax."
    )
    bootstrap_seed: int = Field(default=0, description="Of the bootstrap resamples.")


class ReportData(Part):
    """What the figures were computed on."""

    rows: int = Field(ge=1, description="Labelled rows of the split, each of them counted.")
    positives: int = Field(ge=0, description="Rows with the positive label.")
    negatives: int = Field(ge=0, description="Rows with another label.")
    without_label: int | None = Field(
        default=None,
        ge=0,
        description="Rows that were scored and have no label: in no figure; null: not known.",
    )
    without_group: int = Field(ge=0, description="Rows without a group: in the overall only.")
    labels: dict[str, int] = Field(description="Rows per label, as in the data.")


class BiasReport(Part):
    """How good a classifier is, whom it fails, how sure that is, and whether the caps hold."""

    schema_version: Literal[2] = Field(default=2, description="Version of this form.")
    meta: ReportMeta = Field(description="Where the predictions came from.")
    shown: Shown | None = Field(
        description="What the model under report was given to read; null: not known."
    )
    base_shown: Shown | None = Field(
        default=None,
        description="What the base model beside it was; null: not known, or it was not scored.",
    )
    settings: ReportSettings = Field(description="What the figures were asked for with.")
    data: ReportData = Field(description="What the figures were computed on.")
    success: Success = Field(description="The original's criterion of success, as one figure.")
    overall: Overall = Field(description="All rows, before and after training.")
    groups: tuple[GroupReport, ...] = Field(description="Per group, by name.")
    by_source: tuple[Stratum, ...] = Field(description="Per source, by name; empty without any.")
    by_detail: tuple[Stratum, ...] = Field(
        description="Per finer label, by name; empty without any."
    )
    functional: tuple[Functionality, ...] = Field(
        description="Accuracy per finer label and group; empty without finer labels."
    )
    parity: ParityReport | None = Field(
        description="How far apart the groups are; null with fewer than two groups."
    )
    before_after: BeforeAfter | None = Field(
        description="Base against tuned, row by row; null when the base model was not scored."
    )
    baselines: Baselines = Field(description="What no model at all would reach.")
    caps: tuple[CapVerdict, ...] = Field(description="Every cap with its verdict, as asked for.")
    caps_verdict: Verdict = Field(
        description="fail if any cap fails; pass if every applicable cap passes; not_applicable if "
        "none applies; else inconclusive."
    )
    min_f1: MinF1 | None = Field(description="F1 against the least asked for; null if none was.")
    thresholds: tuple[AtThreshold, ...] = Field(
        description="The verdicts by argmax, by the fitted threshold, and by the given one if any."
    )
    curves: Curves | None = Field(description="What the plots are drawn from; null without scores.")
    worst_mistakes: tuple[Mistake, ...] = Field(
        description="The wrong rows that the model was surest of, the surest first; at most 30."
    )
    format_sample: FormatSample | None = Field(
        description="How often a freely written answer is outside the format; null: not sampled."
    )
    warnings: tuple[ReportWarning, ...] = Field(description="What a reader must know.")
