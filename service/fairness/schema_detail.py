"""Parts of the bias report's form below the headline figures: strata, pairs, curves, thresholds.

As in `schema`: a figure that cannot be computed is null and says why, rates are fractions in
[0, 1], counts are rows, and labels are the positive one against the rest.
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

Rule = Literal["argmax", "fitted", "given"]
Metric = Literal["fpr", "fnr"]


class GroupMetrics(Part):
    """How one model treats one group, or another stratum of the rows."""

    confusion: Confusion = Field(description="Counts of the group's rows.")
    fpr: RateEstimate = Field(description="Rows called positive among the group's negatives.")
    fnr: RateEstimate = Field(description="Rows called negative among the group's positives.")
    accuracy: RateEstimate = Field(description="Rows called right among the group's rows.")


class GroupAuc(Part):
    """Areas under the ROC curve around a group (Borkan et al. 2019, arXiv:1903.04561)."""

    subgroup: Estimate = Field(description="The group's positives against its negatives.")
    bpsn: Estimate = Field(
        description="Background positives against the group's negatives: low where the group's "
        "harmless rows score as high as hateful ones elsewhere."
    )
    bnsp: Estimate = Field(
        description="Background negatives against the group's positives: low where the group's "
        "hateful rows score as low as harmless ones elsewhere."
    )


class CalibrationBin(Part):
    """Rows whose score lies in (lower, upper], the first bin's lower end included."""

    lower: float = Field(ge=0, le=1, description="Lower edge of the scores.")
    upper: float = Field(ge=0, le=1, description="Upper edge of the scores.")
    rows: int = Field(ge=0, description="Rows in the bin.")
    mean_score: float | None = Field(description="Their mean score; null in an empty bin.")
    positives: RateEstimate = Field(description="Share of positive rows among them.")


class Calibration(Part):
    """What is needed for a reliability diagram."""

    error: Estimate = Field(description="Expected calibration error, as in the overall figures.")
    bins: tuple[CalibrationBin, ...] = Field(description="All bins from 0 to 1, in order.")


class GroupReport(Part):
    """One group, before and after training."""

    group: str = Field(description="The group's name in the data.")
    n: int = Field(ge=1, description="Rows of the group.")
    positives: int = Field(ge=0, description="Its rows with the positive label.")
    negatives: int = Field(ge=0, description="Its rows with another label.")
    small_sample: bool = Field(description="Whether n is below min_support.")
    tuned: GroupMetrics = Field(description="The model under report.")
    base: GroupMetrics | None = Field(description="The base model; null when it was not scored.")
    auc: GroupAuc = Field(description="Areas under the ROC curve, of the model under report.")
    calibration: Calibration = Field(description="Of the model under report, on the group's rows.")


class Stratum(Part):
    """The rows of one source, or of one finer label (detail)."""

    name: str = Field(description="The source's or the finer label's name in the data.")
    n: int = Field(ge=1, description="Its rows.")
    positives: int = Field(ge=0, description="Its rows with the positive label.")
    negatives: int = Field(ge=0, description="Its rows with another label.")
    small_sample: bool = Field(description="Whether n is below min_support.")
    tuned: GroupMetrics = Field(description="The model under report.")
    base: GroupMetrics | None = Field(description="The base model; null when it was not scored.")


class FunctionalCell(Part):
    """One target (group) within one functionality."""

    group: str = Field(description="The group that the rows are about.")
    n: int = Field(ge=1, description="Rows of this functionality about it.")
    accuracy: RateEstimate = Field(description="Rows that the model under report called right.")


class Functionality(Part):
    """Accuracy on one finer label, as HateCheck has it (Röttger et al. 2021, arXiv:2012.15606)."""

    name: str = Field(description="The finer label: HateCheck's functionality.")
    n: int = Field(ge=1, description="Its rows.")
    label: str | None = Field(description="The label of all its rows; null where they differ.")
    tuned: RateEstimate = Field(description="Rows that the model under report called right.")
    base: RateEstimate | None = Field(description="The base model's; null when it was not scored.")
    by_group: tuple[FunctionalCell, ...] = Field(description="The same by group, by name.")


class ParityDifference(Part):
    """A difference between groups; 0 is parity. With a basic bootstrap interval: the figure itself
    is the higher, by chance alone, the more and the smaller the groups are.
    """

    value: float | None = Field(description="Largest minus smallest over the groups counted.")
    lower: float | None = Field(description="Lower end of the bootstrap interval.")
    upper: float | None = Field(description="Upper end of the bootstrap interval.")
    highest: str | None = Field(description="The group with the largest rate.")
    lowest: str | None = Field(description="The group with the smallest rate.")
    reason: str | None = Field(default=None, description="Why the value is null.")
    interval_reason: str | None = Field(
        default=None, description="Why the ends are null although the value is not."
    )


class Parity(Part):
    """How far apart the groups are, for one model (fairlearn's definitions)."""

    demographic_parity: ParityDifference = Field(
        description="Of the share of rows called positive."
    )
    false_positive_rate: ParityDifference = Field(description="Of FPR.")
    true_positive_rate: ParityDifference = Field(description="Of 1 - FNR.")
    equalized_odds: ParityDifference = Field(
        description="The larger of the differences of FPR and of 1 - FNR; highest and lowest are "
        "that one's."
    )
    left_out: dict[str, str] = Field(
        description="Groups that some rate cannot be computed for, with the reason; they do not "
        "count in that rate's difference."
    )


class ParityReport(Part):
    """Parity before and after training."""

    tuned: Parity = Field(description="The model under report.")
    base: Parity | None = Field(description="The base model; null when it was not scored.")
    resamples: int = Field(ge=1, description="Bootstrap resamples, of rows within each group.")


class Paired(Part):
    """Two models on the same rows: McNemar's exact test of the rows that one alone got right."""

    rows: int = Field(ge=0, description="Rows that both answered.")
    both_right: int = Field(ge=0, description="Rows that both called right.")
    both_wrong: int = Field(ge=0, description="Rows that both called wrong.")
    only_first: int = Field(ge=0, description="Rows that the first (base) alone called right.")
    only_second: int = Field(ge=0, description="Rows that the second (tuned) alone called right.")
    p_value: float = Field(
        ge=0,
        le=1,
        description="Two-sided exact binomial test of only_first against only_second; 1 where "
        "both are 0.",
    )
    p_holm: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Adjusted over all groups (Holm 1979); null where only one test was made.",
    )


class GroupPaired(Part):
    group: str = Field(description="The group's name in the data.")
    paired: Paired = Field(description="Base against tuned on its rows.")


class BeforeAfter(Part):
    """Base model against tuned model: did training change whom it gets right?"""

    overall: Paired = Field(description="All rows.")
    groups: tuple[GroupPaired, ...] = Field(description="By group; p_holm is over these.")


class CapVerdict(Part):
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


class MinF1(Part):
    """The least F1 asked for, against the point estimate."""

    min_f1: float = Field(ge=0, le=1, description="The least F1 asked for.")
    value: float | None = Field(description="The F1 reached.")
    verdict: Literal["met", "not_met"] | None = Field(description="met when value >= min_f1.")
    reason: str | None = Field(default=None, description="Why the verdict is null.")


class ThresholdFit(Part):
    """How a threshold was fitted: point estimates on the validation split alone."""

    split: str = Field(description="The split that it was fitted on.")
    rows: int = Field(ge=1, description="Labelled rows of that split.")
    f1: float | None = Field(description="F1 there at the threshold.")
    feasible: bool = Field(description="Whether every cap and min_f1 hold there.")
    violation: float = Field(
        ge=0, description="Sum of what the caps are passed by and F1 falls short by; 0: feasible."
    )


class GroupRates(Part):
    group: str = Field(description="The group's name in the data.")
    fpr: RateEstimate = Field(description="At this threshold.")
    fnr: RateEstimate = Field(description="At this threshold.")


class AtThreshold(Part):
    """The whole verdict under one way of turning scores into predictions."""

    rule: Rule = Field(description="argmax: the most probable label; fitted; or given.")
    threshold: float | None = Field(
        description="A row is called positive when its score is at least this; null for argmax and "
        "where none could be fitted."
    )
    reason: str | None = Field(default=None, description="Why nothing was fitted.")
    fit: ThresholdFit | None = Field(description="How it was fitted; null for other rules.")
    overall: OverallMetrics = Field(description="All rows.")
    groups: tuple[GroupRates, ...] = Field(description="By group, by name.")
    caps: tuple[CapVerdict, ...] = Field(description="Every cap with its verdict.")
    caps_verdict: Verdict = Field(description="As in the report.")
    min_f1: MinF1 | None = Field(description="As in the report.")


class Sweep(Part):
    """Figures over a grid of thresholds; columns are parallel. Null: cannot be computed there."""

    thresholds: tuple[float, ...] = Field(description="From 0 to 1, rising.")
    f1: tuple[float | None, ...] = Field(description="Of all rows.")
    precision: tuple[float | None, ...] = Field(description="Of all rows.")
    recall: tuple[float | None, ...] = Field(description="Of all rows.")
    fpr: dict[str, tuple[float | None, ...]] = Field(description="By group.")
    fnr: dict[str, tuple[float | None, ...]] = Field(description="By group.")


class RocCurve(Part):
    """Points of a ROC curve, at most some two hundred; from (0, 0) to (1, 1)."""

    group: str | None = Field(description="The group; null: all rows.")
    fpr: tuple[float, ...] = Field(description="False-positive rates, rising.")
    tpr: tuple[float, ...] = Field(description="True-positive rates, rising.")


class ScoreHistogram(Part):
    """How the scores lie, in bins of equal width over [0, 1], each closed on the right."""

    group: str | None = Field(description="The group; null: all rows.")
    positives: tuple[int, ...] = Field(description="Positive rows a bin.")
    negatives: tuple[int, ...] = Field(description="Negative rows a bin.")


class Curves(Part):
    """What the plots are drawn from; of the model under report."""

    roc: tuple[RocCurve, ...] = Field(
        description="Of all rows first, then by group; one of a single class has none."
    )
    histograms: tuple[ScoreHistogram, ...] = Field(description="Of all rows first, then by group.")
    calibration: Calibration = Field(description="Of all rows; each group has its own.")
    sweep: Sweep = Field(description="What another threshold would give on these rows.")


class Mistake(Part):
    """A row that the model under report got wrong. Its text is in the dataset, not here."""

    id: str = Field(description="The row's id in the dataset.")
    group: str | None = Field(description="Its group.")
    source: str | None = Field(description="Its source.")
    detail: str | None = Field(description="Its finer label.")
    label: str = Field(description="What it is.")
    prediction: str = Field(description="What it was called.")
    score: float = Field(ge=0, le=1, description="The positive label's probability.")


class Success(Part):
    """The criterion that the original scripts were judged by, as one figure.

    The tuned model under its own (short) template against the base model under its own, which may
    be the long policy template (evaluation.baseline_template).
    """

    tuned_template: str = Field(description="Template of the model under report.")
    base_template: str | None = Field(description="Template of the base model; null: not scored.")
    tuned_f1: float | None = Field(description="F1 of the model under report.")
    base_f1: float | None = Field(description="F1 of the base model under its template.")
    difference: float | None = Field(description="Tuned minus base.")
    min_f1: float | None = Field(description="The least F1 asked for; null: none was.")
    verdict: Literal["met", "not_met"] | None = Field(
        description="met when tuned_f1 is at least min_f1 (where one was asked for) and above "
        "base_f1; null when it cannot be said."
    )
    reason: str | None = Field(default=None, description="Why the verdict is null.")


class FormatSample(Part):
    """Answers that the model gave when left to write freely, on a sample of the rows."""

    rows: int = Field(ge=1, description="Rows sampled, at equal distances over the split.")
    outside: RateEstimate = Field(description="Answers that are no label's whole answer.")
    disagree: RateEstimate = Field(
        description="Among answers that are a label's: those of another label than the scored one."
    )
    examples: tuple[str, ...] = Field(description="A few of the answers outside, cut short.")
