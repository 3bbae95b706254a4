"""The bias report's form, version 1: what the API answers and what is stored.

Every figure that cannot be computed is null and says why beside it; 0 always means a measured 0.
Rates and probabilities are fractions in [0, 1], counts are rows. Data with more than two labels is
reduced to the positive label against the rest before anything is counted.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Metric = Literal["fpr", "fnr"]
Verdict = Literal["pass", "fail", "inconclusive", "not_applicable"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Estimate(_Part):
    """A figure without an interval."""

    value: float | None = Field(description="The figure, or null when it cannot be computed.")
    reason: str | None = Field(default=None, description="Why the value is null.")


class RateEstimate(_Part):
    """A share of rows with its two-sided Wilson score interval."""

    value: float | None = Field(description="numerator / denominator, a fraction; null over 0.")
    numerator: int = Field(ge=0, description="Rows counted.")
    denominator: int = Field(ge=0, description="Rows they are counted among.")
    lower: float | None = Field(description="Lower end of the two-sided Wilson interval.")
    upper: float | None = Field(description="Upper end of the two-sided Wilson interval.")
    reason: str | None = Field(default=None, description="Why the value is null.")


class Confusion(_Part):
    """Rows by what they are and what they were called, positive label against the rest."""

    true_positive: int = Field(ge=0, description="Positive rows called positive.")
    true_negative: int = Field(ge=0, description="Negative rows called negative.")
    false_positive: int = Field(ge=0, description="Negative rows called positive.")
    false_negative: int = Field(ge=0, description="Positive rows called negative.")


class OverallMetrics(_Part):
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


class Differences(_Part):
    """Tuned minus base, per figure; null where either is null."""

    accuracy: Estimate = Field(description="Difference of accuracies.")
    precision: Estimate = Field(description="Difference of precisions.")
    recall: Estimate = Field(description="Difference of recalls.")
    fpr: Estimate = Field(description="Difference of false-positive rates.")
    fnr: Estimate = Field(description="Difference of false-negative rates.")
    f1: Estimate = Field(description="Difference of F1 scores.")
    auc: Estimate = Field(description="Difference of areas under the ROC curve.")
    calibration_error: Estimate = Field(description="Difference of expected calibration errors.")


class Overall(_Part):
    """The whole split, before and after training."""

    tuned: OverallMetrics = Field(description="The model under report.")
    base: OverallMetrics | None = Field(description="The base model; null when it was not scored.")
    difference: Differences | None = Field(description="Tuned minus base; null without a base.")


class GroupMetrics(_Part):
    """How one model treats one group."""

    confusion: Confusion = Field(description="Counts of the group's rows.")
    fpr: RateEstimate = Field(description="Rows called positive among the group's negatives.")
    fnr: RateEstimate = Field(description="Rows called negative among the group's positives.")
    accuracy: RateEstimate = Field(description="Rows called right among the group's rows.")


class GroupReport(_Part):
    """One group, before and after training."""

    group: str = Field(description="The group's name in the data.")
    n: int = Field(ge=1, description="Rows of the group.")
    positives: int = Field(ge=0, description="Its rows with the positive label.")
    negatives: int = Field(ge=0, description="Its rows with another label.")
    small_sample: bool = Field(description="Whether n is below min_support.")
    tuned: GroupMetrics = Field(description="The model under report.")
    base: GroupMetrics | None = Field(description="The base model; null when it was not scored.")


class Baselines(_Part):
    """What no model at all would reach on the same rows."""

    always_positive: OverallMetrics = Field(description="Calling every row positive.")
    group_majority: OverallMetrics = Field(
        description="Calling every row by its group's majority in the training split, or the whole "
        "split's where the group is unknown there, tied or missing. A tie there is positive."
    )


class CapVerdict(_Part):
    """Whether a group's error rate is shown to be under its cap.

    pass: the one-sided Clopper-Pearson upper limit is under the cap. fail: the lower limit is over
    it. inconclusive: neither. not_applicable: the data has no such group.
    """

    group: str = Field(description="The group that the cap is about.")
    metric: Metric = Field(description="Which error rate is capped.")
    max: float = Field(ge=0, le=1, description="The cap, a fraction.")
    observed: float | None = Field(description="The measured rate, a fraction.")
    numerator: int = Field(ge=0, description="Errors counted.")
    denominator: int = Field(ge=0, description="The group's negatives (fpr) or positives (fnr).")
    lower: float | None = Field(description="One-sided lower confidence limit.")
    upper: float | None = Field(description="One-sided upper confidence limit.")
    verdict: Verdict = Field(description="The verdict at the report's confidence.")
    needed_further: int | None = Field(
        description="When inconclusive: the fewest further negatives (fpr) or positives (fnr) at "
        "the observed rate that would settle the verdict; null when none would."
    )
    would_settle: Literal["pass", "fail"] | None = Field(
        description="The verdict that needed_further would give."
    )
    reason: str | None = Field(description="Why the rate or needed_further is null.")


class MinF1(_Part):
    """The least F1 asked for, against the point estimate."""

    min_f1: float = Field(ge=0, le=1, description="The least F1 asked for.")
    value: float | None = Field(description="The F1 reached.")
    verdict: Literal["met", "not_met"] | None = Field(description="met when value >= min_f1.")
    reason: str | None = Field(default=None, description="Why the verdict is null.")


class ReportWarning(_Part):
    """Something a reader of the figures must know."""

    code: str = Field(description="A stable word for it.")
    detail: str = Field(description="A sentence.")


class ReportMeta(_Part):
    """Where the predictions came from."""

    run_id: str | None = Field(default=None, description="The run; null outside of one.")
    base_model: str = Field(description="Name of the base model.")
    template: str = Field(description="Prompt template of the model under report.")
    split: str = Field(description="Split that the rows are from.")
    checkpoint_step: int | None = Field(default=None, description="Optimizer step of the weights.")
    threshold: Literal["argmax", "fitted"] = Field(
        default="argmax", description="How scores became predictions."
    )
    group_shown: bool = Field(
        default=False, description="Whether the prompt told the model the row's group."
    )
    exploratory: bool = Field(
        default=False,
        description="Whether caps, confidence or threshold differ from the run's; gates nothing.",
    )


class ReportSettings(_Part):
    """What the figures were asked for with."""

    positive_label: str = Field(description="The label that counts as positive.")
    confidence: float = Field(ge=0.5, lt=1, description="Of intervals and one-sided limits.")
    min_support: int = Field(ge=0, description="Rows below which a group is called small.")


class ReportData(_Part):
    """What the figures were computed on."""

    rows: int = Field(ge=1, description="Rows of the split, each of them counted.")
    positives: int = Field(ge=0, description="Rows with the positive label.")
    negatives: int = Field(ge=0, description="Rows with another label.")
    without_group: int = Field(ge=0, description="Rows without a group: in the overall only.")
    labels: dict[str, int] = Field(description="Rows per label, as in the data.")


class BiasReport(_Part):
    """How good a classifier is, whom it fails, how sure that is, and whether the caps hold."""

    schema_version: Literal[1] = Field(default=1, description="Version of this form.")
    meta: ReportMeta = Field(description="Where the predictions came from.")
    settings: ReportSettings = Field(description="What the figures were asked for with.")
    data: ReportData = Field(description="What the figures were computed on.")
    overall: Overall = Field(description="All rows, before and after training.")
    groups: tuple[GroupReport, ...] = Field(description="Per group, by name.")
    baselines: Baselines = Field(description="What no model at all would reach.")
    caps: tuple[CapVerdict, ...] = Field(description="Every cap with its verdict, as asked for.")
    caps_verdict: Verdict = Field(
        description="fail if any cap fails; pass if every applicable cap passes; not_applicable if "
        "none applies; else inconclusive."
    )
    min_f1: MinF1 | None = Field(description="F1 against the least asked for; null if none was.")
    warnings: tuple[ReportWarning, ...] = Field(description="What a reader must know.")
