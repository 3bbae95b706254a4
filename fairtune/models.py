"""Types of the API's resources and of their parts.

Generated from the service's OpenAPI document by tools/client_models.py; do not edit. A field that
an older server does not send is None, or has its default. A newer server's further fields are in
`raw` only.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Required, TypedDict

from fairtune._decoding import Model

FailureReason = Literal[
    "invalid_spec",
    "invalid_data",
    "model_unavailable",
    "out_of_memory",
    "diverged",
    "crashed",
    "worker_lost",
    "stalled",
    "no_space",
    "internal",
]
JobRequest = Literal["cancel", "pause"]
"""A user's request to a running job; the supervisor polls it and acts at a step boundary."""
JobStatus = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
KeyState = Literal["active", "expired", "revoked"]
"""State of an API key; a revoked key stays revoked even after its expiry."""
Role = Literal["viewer", "operator", "admin"]
"""Permissions of an API key, ordered by rank: each role includes those below it."""


@dataclass(kw_only=True, repr=False)
class AdapterWarningView(Model):
    """A reason why the adapter may not be what its user expects."""

    code: str
    """Stable identifier of the warning, such as other_base_model."""

    detail: str
    """The warning as a sentence."""


@dataclass(kw_only=True, repr=False)
class PeftView(Model):
    """What adapter_config.json says of the adapter."""

    r: int
    """Rank; single layers may have another (rank_pattern)."""

    lora_alpha: float
    """Scale of the update."""

    bias: str
    """Bias parameters that the adapter replaces: none, all, …"""

    use_rslora: bool
    """True if the scale is lora_alpha / sqrt(r)."""

    use_dora: bool
    """True for weight-decomposed LoRA."""

    modules: list[str]
    """Last parts of the names of the adapted layers."""

    base_model_name_or_path: str | None
    """Base model that adapter_config.json names; it may be a path elsewhere."""

    peft_version: str | None
    """Version of peft that wrote it; null if unknown."""


@dataclass(kw_only=True, repr=False)
class AdapterView(Model):
    """An adapter that was trained elsewhere. It is a run, too: GET /v1/runs/{id}."""

    id: str
    """Identifier, which is that of its run."""

    name: str
    """Name from the import, or a generated one."""

    base_model: str
    """Base model that it is loaded on."""

    dataset_id: str | None
    """Dataset that its evaluations use unless they set another; null: none."""

    template: str
    """Prompt template."""

    labels: list[str]
    """Labels that it distinguishes, sorted."""

    positive_label: str
    """Label that counts as positive."""

    peft: PeftView
    """The adapter's own configuration."""

    tensors: int
    """Number of tensors."""

    parameters: int
    """Number of parameters."""

    dtypes: list[str]
    """Types of the tensors, such as F32."""

    size: int
    """Size of adapter_model.safetensors in bytes."""

    sha256: str
    """SHA-256 of adapter_model.safetensors."""

    ignored_files: list[str]
    """Files of the archive that are not used; at most 100 of them."""

    warnings: list[AdapterWarningView]
    """Reasons why the adapter may not be what its user expects."""

    promoted_as: list[str]
    """Current release names, as name@stage."""

    created_by: str | None
    """Name of the API key of the request; null without authentication."""

    created_at: datetime
    """Time of the import."""


@dataclass(kw_only=True, repr=False)
class ArtifactView(Model):
    """A file of the run's result."""

    path: str
    """Path for GET …/artifacts/{path}."""

    size: int
    """Size in bytes."""

    sha256: str
    """SHA-256 of the content."""

    created_at: datetime
    """Time at which the file was stored."""


@dataclass(kw_only=True, repr=False)
class ArtifactList(Model):
    """Files of the run's result."""

    data: list[ArtifactView]
    """Files by path."""


@dataclass(kw_only=True, repr=False)
class CapVerdict(Model):
    """Verdict on a cap on a group's error rate.

    pass: the one-sided Clopper-Pearson upper limit is below the cap. fail: the lower limit
    is above the cap. inconclusive: neither. not_applicable: no split of the dataset has such
    a group.
    """

    group: str
    """Group whose rate is capped."""

    metric: Literal["fpr", "fnr"]
    """Error rate that is capped."""

    max: float
    """Cap on the rate, a fraction."""

    observed: float | None
    """Observed rate, a fraction."""

    numerator: int
    """Number of errors."""

    denominator: int
    """Number of the group's negatives (fpr) or positives (fnr)."""

    lower: float | None
    """One-sided lower confidence limit."""

    upper: float | None
    """One-sided upper confidence limit."""

    verdict: Literal["pass", "fail", "inconclusive", "not_applicable"]
    """Verdict at the confidence of the report."""

    needed_further: int | None
    """For an inconclusive verdict: the minimum number of further negatives (fpr) or positives
    (fnr), at the observed rate, that would settle it; null if no number would.
    """

    would_settle: Literal["pass", "fail"] | None
    """Verdict that these further rows would give."""

    reason: str | None
    """Reason for a null rate or needed_further."""


@dataclass(kw_only=True, repr=False)
class RateEstimate(Model):
    """A share of rows with its two-sided Wilson score interval."""

    value: float | None
    """numerator / denominator, a fraction; null if the denominator is 0."""

    numerator: int
    """Number of rows with the counted outcome."""

    denominator: int
    """Number of rows among which they are counted."""

    lower: float | None
    """Lower end of the two-sided Wilson interval."""

    upper: float | None
    """Upper end of the two-sided Wilson interval."""

    reason: str | None = None
    """Reason for a null value."""


@dataclass(kw_only=True, repr=False)
class GroupRates(Model):
    """Error rates of one group."""

    group: str
    """Name of the group in the data."""

    fpr: RateEstimate
    """False-positive rate of the group."""

    fnr: RateEstimate
    """False-negative rate of the group."""


@dataclass(kw_only=True, repr=False)
class MinF1(Model):
    """Comparison of the F1 point estimate with the required minimum."""

    min_f1: float
    """Required minimum F1."""

    value: float | None
    """F1 of the model."""

    verdict: Literal["met", "not_met"] | None
    """met if value >= min_f1."""

    reason: str | None = None
    """Reason for a null verdict."""


@dataclass(kw_only=True, repr=False)
class Confusion(Model):
    """Confusion matrix, positive label versus all others."""

    true_positive: int
    """Positive rows that are predicted positive."""

    true_negative: int
    """Negative rows that are predicted negative."""

    false_positive: int
    """Negative rows that are predicted positive."""

    false_negative: int
    """Positive rows that are predicted negative."""


@dataclass(kw_only=True, repr=False)
class Estimate(Model):
    """A figure that is not a share of rows, possibly with a bootstrap interval."""

    value: float | None
    """The figure; null if it cannot be computed."""

    lower: float | None = None
    """Lower end of the interval, if any."""

    upper: float | None = None
    """Upper end of the interval, if any."""

    reason: str | None = None
    """Reason for a null value."""

    interval_reason: str | None = None
    """Reason for the lack of an interval if the value is not null."""


@dataclass(kw_only=True, repr=False)
class OverallMetrics(Model):
    """Metrics of a model over all rows of the split."""

    confusion: Confusion | None
    """Confusion matrix; null if there are no predictions."""

    accuracy: RateEstimate
    """Share of all rows that are predicted correctly."""

    precision: RateEstimate
    """Share of the predicted positives that are positive."""

    recall: RateEstimate
    """Share of the positives that are predicted positive."""

    fpr: RateEstimate
    """False-positive rate: share of the negatives that are predicted positive."""

    fnr: RateEstimate
    """False-negative rate: share of the positives that are predicted negative."""

    f1: Estimate
    """Harmonic mean of precision and recall: 2TP/(2TP+FP+FN)."""

    auc: Estimate
    """Area under the ROC curve of the positive label's score."""

    calibration_error: Estimate
    """Expected calibration error of the positive label's probability over 15 bins of equal
    width (Guo et al. 2017, equation 3).
    """


@dataclass(kw_only=True, repr=False)
class ThresholdFit(Model):
    """Fit of a threshold: point estimates on the validation split alone."""

    split: str
    """Split on which the threshold was fitted."""

    rows: int
    """Number of labelled rows used for the fit."""

    f1: float | None
    """F1 at the threshold on these rows."""

    feasible: bool
    """True if every cap and min_f1 are satisfied on these rows."""

    violation: float
    """Total excess over the caps plus the shortfall of F1 on these rows; 0 if feasible."""


@dataclass(kw_only=True, repr=False)
class AtThreshold(Model):
    """Figures and verdicts under one decision rule."""

    rule: Literal["argmax", "fitted", "given"]
    """Decision rule: argmax (the most probable label), fitted or given threshold."""

    threshold: float | None
    """Minimum score of a predicted positive; null for argmax, or if no threshold was fitted."""

    reason: str | None = None
    """Reason why no threshold was fitted."""

    fit: ThresholdFit | None
    """Fit of the threshold; null for the other decision rules."""

    overall: OverallMetrics
    """Metrics over all rows."""

    groups: list[GroupRates]
    """Error rates by group, sorted by name."""

    caps: list[CapVerdict]
    """Verdict on every cap."""

    caps_verdict: Literal["pass", "fail", "inconclusive", "not_applicable"]
    """Verdict on all caps together, as in the report."""

    min_f1: MinF1 | None
    """Comparison with the required minimum F1; null if there is none."""


@dataclass(kw_only=True, repr=False)
class Baselines(Model):
    """Metrics of trivial baselines on the same rows."""

    always_positive: OverallMetrics
    """Metrics of predicting every row as positive."""

    group_majority: OverallMetrics
    """Metrics of predicting each row as the majority of its group's training rows, or of the
    whole training split if the group is missing, tied or absent there. A tie of the whole
    split is positive.
    """

    majority_positive: dict[str, bool] | None = None
    """By group, true if group_majority predicts its rows as positive; null if the labels of the
    training split are not known.
    """


@dataclass(kw_only=True, repr=False)
class Paired(Model):
    """Two models on the same rows: McNemar's exact test of the rows that only one got right."""

    rows: int
    """Rows that both models predicted."""

    both_right: int
    """Rows that both models predict correctly."""

    both_wrong: int
    """Rows that both models predict incorrectly."""

    only_first: int
    """Rows that only the first model (base) predicts correctly."""

    only_second: int
    """Rows that only the second model (tuned) predicts correctly."""

    p_value: float
    """P-value of the two-sided exact binomial test of only_first versus only_second; 1 if both
    are 0.
    """

    p_holm: float | None = None
    """P-value adjusted for the number of tests (Holm 1979); null for a single test."""


@dataclass(kw_only=True, repr=False)
class GroupPaired(Model):
    """Base model versus tuned model on the rows of one group."""

    group: str
    """Name of the group in the data."""

    paired: Paired
    """Test of base versus tuned model on the group."""


@dataclass(kw_only=True, repr=False)
class BeforeAfter(Model):
    """Base model versus tuned model, row by row."""

    overall: Paired
    """Test over all rows."""

    groups: list[GroupPaired]
    """Test by group; p_holm is adjusted over the groups."""


@dataclass(kw_only=True, repr=False)
class CalibrationBin(Model):
    """Rows with a score in (lower, upper]; the first bin includes its lower end."""

    lower: float
    """Lower edge of the bin."""

    upper: float
    """Upper edge of the bin."""

    rows: int
    """Number of rows in the bin."""

    mean_score: float | None
    """Mean score of the rows; null for an empty bin."""

    positives: RateEstimate
    """Share of the rows that are positive."""


@dataclass(kw_only=True, repr=False)
class Calibration(Model):
    """Data of a reliability diagram."""

    error: Estimate
    """Expected calibration error, as in the overall metrics."""

    bins: list[CalibrationBin]
    """All bins from 0 to 1, in order."""


@dataclass(kw_only=True, repr=False)
class RocCurve(Model):
    """ROC curve from (0, 0) to (1, 1), of at most about two hundred points."""

    group: str | None
    """Name of the group; null for all rows."""

    fpr: list[float]
    """False-positive rates, ascending."""

    tpr: list[float]
    """True-positive rates, ascending."""


@dataclass(kw_only=True, repr=False)
class ScoreHistogram(Model):
    """Histogram of the scores in bins of equal width over [0, 1], closed on the right."""

    group: str | None
    """Name of the group; null for all rows."""

    positives: list[int]
    """Number of positive rows per bin."""

    negatives: list[int]
    """Number of negative rows per bin."""


@dataclass(kw_only=True, repr=False)
class Sweep(Model):
    """Figures over a grid of thresholds; the columns are parallel.

    A figure is null at thresholds where it cannot be computed.
    """

    thresholds: list[float]
    """Thresholds from 0 to 1, ascending."""

    f1: list[float | None]
    """F1 over all rows."""

    precision: list[float | None]
    """Precision over all rows."""

    recall: list[float | None]
    """Recall over all rows."""

    fpr: dict[str, list[float | None]]
    """False-positive rate by group."""

    fnr: dict[str, list[float | None]]
    """False-negative rate by group."""


@dataclass(kw_only=True, repr=False)
class Curves(Model):
    """Data of the plots, for the model under report."""

    roc: list[RocCurve]
    """ROC curves of all rows and of each group; rows of a single class have none."""

    histograms: list[ScoreHistogram]
    """Score histograms of all rows and of each group."""

    calibration: Calibration
    """Calibration over all rows."""

    sweep: Sweep
    """Figures at other thresholds on the same rows."""


@dataclass(kw_only=True, repr=False)
class FormatSample(Model):
    """Freely generated answers on a sample of the rows."""

    rows: int
    """Number of sampled rows, evenly spaced over the split."""

    outside: RateEstimate
    """Share of the answers that are not exactly the answer of a label."""

    disagree: RateEstimate
    """Share of the other answers whose label differs from the predicted label."""

    examples: list[str]
    """Examples of answers that are not a label, truncated."""


@dataclass(kw_only=True, repr=False)
class FunctionalCell(Model):
    """Accuracy on the rows of one functionality about one group."""

    group: str
    """Name of the group in the data."""

    n: int
    """Rows of the functionality about this group."""

    accuracy: RateEstimate
    """Share of the rows that the model under report predicts correctly."""


@dataclass(kw_only=True, repr=False)
class Functionality(Model):
    """Functional test: accuracy on one finer label, as in HateCheck (Röttger et al. 2021,
    arXiv:2012.15606).
    """

    name: str
    """Name of the finer label (HateCheck's functionality)."""

    n: int
    """Number of rows."""

    label: str | None
    """Label of all its rows; null if the labels differ."""

    tuned: RateEstimate
    """Share of the rows that the model under report predicts correctly."""

    base: RateEstimate | None
    """Share of the rows that the base model predicts correctly; null if it was not scored."""

    by_group: list[FunctionalCell]
    """Accuracy of the model under report by group, sorted by name."""


@dataclass(kw_only=True, repr=False)
class GroupAuc(Model):
    """ROC AUC of a group against the background (Borkan et al. 2019, arXiv:1903.04561)."""

    subgroup: Estimate
    """Subgroup AUC: the group's positives versus its negatives."""

    bpsn: Estimate
    """Background positive, subgroup negative AUC: positives of all other rows versus the
    group's negatives. It is low if the group's negatives score as high as positives
    elsewhere.
    """

    bnsp: Estimate
    """Background negative, subgroup positive AUC: negatives of all other rows versus the
    group's positives. It is low if the group's positives score as low as negatives
    elsewhere.
    """


@dataclass(kw_only=True, repr=False)
class GroupMetrics(Model):
    """Metrics of one model on one group, or on another stratum of the rows."""

    confusion: Confusion
    """Confusion matrix of the group."""

    fpr: RateEstimate
    """False-positive rate: share of the group's negatives that are predicted positive."""

    fnr: RateEstimate
    """False-negative rate: share of the group's positives that are predicted negative."""

    accuracy: RateEstimate
    """Share of the group's rows that are predicted correctly."""


@dataclass(kw_only=True, repr=False)
class GroupReport(Model):
    """Metrics of one group before and after training."""

    group: str
    """Name of the group in the data."""

    n: int
    """Number of rows in the group."""

    positives: int
    """Rows of the group with the positive label."""

    negatives: int
    """Rows of the group with another label."""

    small_sample: bool
    """True if a rate of the group rests on fewer rows than min_support: on that many negatives
    (FPR) or positives (FNR). A rate without any rows is null instead.
    """

    tuned: GroupMetrics
    """Metrics of the model under report."""

    base: GroupMetrics | None
    """Metrics of the base model; null if it was not scored."""

    auc: GroupAuc
    """ROC AUC of the model under report around the group."""

    calibration: Calibration
    """Calibration of the model under report on the group."""


@dataclass(kw_only=True, repr=False)
class Mistake(Model):
    """A row that the model under report predicts incorrectly; its text is in the dataset."""

    id: str
    """Id of the row in the dataset."""

    group: str | None
    """Group of the row."""

    source: str | None
    """Source of the row."""

    detail: str | None
    """Finer label of the row."""

    label: str
    """True label."""

    prediction: str
    """Predicted label."""

    score: float
    """Probability of the positive label."""


@dataclass(kw_only=True, repr=False)
class Differences(Model):
    """Tuned minus base for each metric; null if either is null."""

    accuracy: Estimate
    """Difference of the accuracies."""

    precision: Estimate
    """Difference of the precisions."""

    recall: Estimate
    """Difference of the recalls."""

    fpr: Estimate
    """Difference of the false-positive rates."""

    fnr: Estimate
    """Difference of the false-negative rates."""

    f1: Estimate
    """Difference of the F1 scores."""

    auc: Estimate
    """Difference of the areas under the ROC curve."""

    calibration_error: Estimate
    """Difference of the expected calibration errors."""


@dataclass(kw_only=True, repr=False)
class Overall(Model):
    """Metrics over the whole split, before and after training."""

    tuned: OverallMetrics
    """Metrics of the model under report."""

    base: OverallMetrics | None
    """Metrics of the base model; null if it was not scored."""

    difference: Differences | None
    """Tuned minus base; null if the base model was not scored."""


@dataclass(kw_only=True, repr=False)
class ParityDifference(Model):
    """Difference between groups with its basic bootstrap interval; 0 is parity.

    The value itself is biased upwards: it grows by chance with the number of groups, and
    more so if the groups are small.
    """

    value: float | None
    """Largest minus smallest rate over the groups."""

    lower: float | None
    """Lower end of the bootstrap interval."""

    upper: float | None
    """Upper end of the bootstrap interval."""

    highest: str | None
    """Group with the largest rate."""

    lowest: str | None
    """Group with the smallest rate."""

    reason: str | None = None
    """Reason for a null value."""

    interval_reason: str | None = None
    """Reason for the lack of an interval if the value is not null."""


@dataclass(kw_only=True, repr=False)
class Parity(Model):
    """Differences between the groups for one model (fairlearn's definitions)."""

    demographic_parity: ParityDifference
    """Demographic parity difference: of the share of rows predicted positive."""

    false_positive_rate: ParityDifference
    """Difference of the false-positive rates."""

    true_positive_rate: ParityDifference
    """Difference of the true-positive rates (1 - FNR)."""

    equalized_odds: ParityDifference
    """Equalized odds difference: the larger of the differences of the false-positive and the
    true-positive rates; highest and lowest are those of that rate.
    """

    left_out: dict[str, str]
    """Groups for which a rate cannot be computed, with the reason; they are excluded from the
    difference of that rate.
    """


@dataclass(kw_only=True, repr=False)
class ParityReport(Model):
    """Differences between the groups before and after training."""

    tuned: Parity
    """Differences for the model under report."""

    base: Parity | None
    """Differences for the base model; null if it was not scored."""

    resamples: int
    """Number of bootstrap resamples of the rows within each group."""


@dataclass(kw_only=True, repr=False)
class ReportData(Model):
    """Rows on which the figures were computed."""

    rows: int
    """Number of scored rows with a label."""

    positives: int
    """Rows with the positive label."""

    negatives: int
    """Rows with another label."""

    without_label: int | None = None
    """Scored rows without a label, which no figure includes; null if unknown."""

    without_group: int
    """Rows without a group, which only the overall figures include."""

    labels: dict[str, int]
    """Number of rows by label, as in the data."""

    seen_in_training: int | None = None
    """Rows whose text is among the rows that the model was trained on, in this dataset or
    another; null if unknown.
    """

    seen_in_validation: int | None = None
    """Further rows whose text is among the validation rows of the run, on which the checkpoint
    and the threshold may have been chosen; null if unknown.
    """


@dataclass(kw_only=True, repr=False)
class ReportMeta(Model):
    """Origin of the predictions."""

    run_id: str | None = None
    """Id of the run; null outside of a run."""

    evaluation_id: str | None = None
    """Id of the stored evaluation; null in the report that a run writes when it ends, before
    its evaluations have ids.
    """

    base_model: str
    """Name of the base model."""

    target: Literal["base", "adapter", "checkpoint", "merged"] = "adapter"
    """Kind of model under report."""

    template: str
    """Prompt template of the model under report."""

    base_template: str | None = None
    """Prompt template of the base model; null if it was not scored."""

    dataset_id: str | None = None
    """Id of the dataset of the rows."""

    split: str
    """Split of the rows."""

    max_samples: int | None = None
    """Maximum number of rows that were scored; null if all were."""

    checkpoint_step: int | None = None
    """Optimizer step of the weights."""

    threshold: Literal["argmax", "fitted", "given"] = "argmax"
    """Decision rule of the headline figures. The base model's figures always use argmax,
    because no threshold is fitted for it.
    """

    exploratory: bool = False
    """True if the settings, the model or the split differ from those that certify the run. An
    exploratory report does not gate a release.
    """


@dataclass(kw_only=True, repr=False)
class ReportSettings(Model):
    """Settings of the report."""

    positive_label: str
    """Label that counts as positive."""

    confidence: float
    """Confidence of the intervals and of each one-sided limit."""

    min_support: int
    """Minimum number of negatives (FPR) or positives (FNR) behind a rate that is not a small
    sample.
    """

    threshold: float | None = None
    """Minimum score of a predicted positive; null for argmax."""

    bootstrap_seed: int = 0
    """Seed of the bootstrap resamples."""


@dataclass(kw_only=True, repr=False)
class ReportWarning(Model):
    """A reason why figures may be less reliable than they look."""

    code: str
    """Stable code of the warning."""

    detail: str
    """The warning as a sentence."""


@dataclass(kw_only=True, repr=False)
class Shown(Model):
    """Prompt of a model."""

    system: str | None
    """System turn of the template; null if it has none, or if the rows are chats."""

    user: str | None
    """User turn of the template, with $text for the row's text; null if the rows are chats."""

    completion: str | None
    """Answer of the template, with $label for the label's word; null if the rows are chats."""

    group: bool
    """True if the prompt states the row's group."""

    truncated: int | None
    """Number of rows of the split whose text was truncated; null if unknown."""


@dataclass(kw_only=True, repr=False)
class Stratum(Model):
    """Metrics of one source or of one finer label (detail)."""

    name: str
    """Name of the source or the finer label in the data."""

    n: int
    """Number of rows."""

    positives: int
    """Rows with the positive label."""

    negatives: int
    """Rows with another label."""

    small_sample: bool
    """True if a rate rests on fewer rows than min_support, as for groups."""

    tuned: GroupMetrics
    """Metrics of the model under report."""

    base: GroupMetrics | None
    """Metrics of the base model; null if it was not scored."""


@dataclass(kw_only=True, repr=False)
class Success(Model):
    """Success criterion of the original scripts.

    It compares the tuned model under its (short) template with the base model under its own,
    which may be the long policy template (evaluation.baseline_template).
    """

    tuned_template: str
    """Template of the model under report."""

    base_template: str | None
    """Template of the base model; null if it was not scored."""

    tuned_f1: float | None
    """F1 of the model under report."""

    base_f1: float | None
    """F1 of the base model under its template."""

    difference: float | None
    """tuned_f1 minus base_f1."""

    min_f1: float | None
    """Required minimum F1; null if there is none."""

    verdict: Literal["met", "not_met"] | None
    """met if tuned_f1 is at least min_f1 (if there is one) and above base_f1; null if this
    cannot be determined.
    """

    reason: str | None = None
    """Reason for a null verdict."""


@dataclass(kw_only=True, repr=False)
class UnseenRows(Model):
    """Verdicts on the evaluated rows whose text is in neither split that shaped the model.

    They are by the decision rule of the report. A release needs them as well as those on all
    rows.
    """

    rows: int
    """Number of such rows."""

    f1: Estimate
    """F1 on these rows."""

    caps: list[CapVerdict]
    """Verdict on every cap on these rows."""

    caps_verdict: Literal["pass", "fail", "inconclusive", "not_applicable"]
    """Verdict on all caps together on these rows."""

    min_f1: MinF1 | None
    """Comparison with the required minimum F1; null if there is none."""


@dataclass(kw_only=True, repr=False)
class BiasReport(Model):
    """Bias report of a classifier: metrics overall and by group, their uncertainty, and
    verdicts on caps.
    """

    schema_version: Literal[2] = 2
    """Version of this schema."""

    meta: ReportMeta

    shown: Shown | None
    """Prompt of the model under report; null if it is not known."""

    base_shown: Shown | None = None
    """Prompt of the base model; null if it is not known or was not scored."""

    settings: ReportSettings

    data: ReportData

    success: Success
    """Success criterion of the original scripts."""

    overall: Overall
    """Metrics over all rows, before and after training."""

    groups: list[GroupReport]
    """Metrics by group, sorted by name."""

    by_source: list[Stratum]
    """Metrics by source, sorted by name; empty if no row has a source."""

    by_detail: list[Stratum]
    """Metrics by finer label, sorted by name; empty if no row has one."""

    functional: list[Functionality]
    """Accuracy by finer label and group; empty if no row has a finer label."""

    parity: ParityReport | None
    """Differences between the groups; null if there are fewer than two groups."""

    before_after: BeforeAfter | None
    """Base model versus tuned model, row by row; null if the base model was not scored."""

    baselines: Baselines
    """Metrics of trivial baselines."""

    caps: list[CapVerdict]
    """Verdict on every cap, in the given order."""

    caps_verdict: Literal["pass", "fail", "inconclusive", "not_applicable"]
    """Verdict on all caps: fail if any cap fails, pass if every applicable cap passes,
    not_applicable if no cap applies, otherwise inconclusive.
    """

    min_f1: MinF1 | None
    """Comparison with the required minimum F1; null if there is none."""

    unseen: UnseenRows | None = None
    """Verdicts on the rows whose text influenced the model in no way; null if these are all
    rows, or if it is unknown which they are.
    """

    thresholds: list[AtThreshold]
    """Figures and verdicts under each decision rule: argmax, the fitted threshold, and the
    given threshold if there is one.
    """

    curves: Curves | None
    """Data of the plots; null if there are no scores."""

    worst_mistakes: list[Mistake]
    """Incorrectly predicted rows, the most confident first; at most 30."""

    format_sample: FormatSample | None
    """Freely generated answers on a sample of the rows; null if none were generated."""

    warnings: list[ReportWarning]
    """Reasons why figures may be less reliable than they look."""


class CapOptions(TypedDict, total=False):
    """A release limit: the group's error rate must be provably below `max`."""

    group: Required[str]
    """Group, as in the dataset's group column."""

    metric: Literal["fpr", "fnr"]
    """Error rate: false positive rate or false negative rate."""

    max: Required[float]
    """The cap passes if the rate's upper confidence limit is below this."""


@dataclass(kw_only=True, repr=False)
class Cap(Model):
    """A release limit: the group's error rate must be provably below `max`."""

    group: str
    """Group, as in the dataset's group column."""

    metric: Literal["fpr", "fnr"] = "fpr"
    """Error rate: false positive rate or false negative rate."""

    max: float
    """The cap passes if the rate's upper confidence limit is below this."""


class Turn(TypedDict, total=False):
    """One turn of a chat to classify."""

    role: Required[Literal["system", "user", "assistant"]]
    """Author of the turn."""

    content: Required[str]
    """Text of the turn; blank only if it is the system's."""


@dataclass(kw_only=True, repr=False)
class ChatTurn(Model):
    """One turn of a chat to classify."""

    role: Literal["system", "user", "assistant"]
    """Author of the turn."""

    content: str
    """Text of the turn; blank only if it is the system's."""


@dataclass(kw_only=True, repr=False)
class FileEntry(Model):
    """A finished file."""

    path: str
    """Path in the directory of the event, checkpoint or merged model."""

    size: int
    """Size in bytes."""

    sha256: str
    """SHA-256 of the content."""


@dataclass(kw_only=True, repr=False)
class CheckpointView(Model):
    """A stored checkpoint, which peft can open as an adapter."""

    step: int
    """Optimizer step."""

    epoch: float
    """Completed epochs."""

    is_best: bool
    """True for the best checkpoint so far."""

    metrics: dict[str, float]
    """Validation metrics at this step."""

    size: int
    """Total size of the files in bytes."""

    files: list[FileEntry]
    """Files of the checkpoint."""

    created_at: datetime
    """Time at which the checkpoint was stored."""


@dataclass(kw_only=True, repr=False)
class CheckpointList(Model):
    """Stored checkpoints of a run."""

    data: list[CheckpointView]
    """Checkpoints by ascending step."""


@dataclass(kw_only=True, repr=False)
class WorstExcess(Model):
    """Largest excess of a model's rates over the caps, by point estimates."""

    value: float | None
    """Largest observed rate minus cap over the applicable caps; negative if every cap is
    satisfied; null if no cap applies.
    """

    group: str | None
    """Group of that cap; the first one if several are equal."""

    metric: Literal["fpr", "fnr"] | None
    """Error rate of that cap."""

    reason: str | None = None
    """Reason for a null value."""


@dataclass(kw_only=True, repr=False)
class Compared(Model):
    """Headline figures of one model on the common rows."""

    entry: str
    """Unique name of the model in the request: run id or run@step."""

    run_id: str | None
    """Id of the run; null outside of a run."""

    step: int | None
    """Step of the checkpoint; null for the final adapter of the run."""

    evaluation_id: str | None
    """Id of the stored evaluation with the predictions."""

    name: str
    """Name of the run."""

    base_model: str
    """Name of the base model."""

    template: str
    """Prompt template with which the rows were scored."""

    rule: Literal["argmax", "fitted", "given"]
    """Decision rule of the figures."""

    threshold: float | None
    """Minimum score of a predicted positive; null for argmax."""

    confusion: Confusion
    """Confusion matrix over all rows."""

    f1: Estimate
    """Harmonic mean of precision and recall: 2TP/(2TP+FP+FN)."""

    accuracy: RateEstimate
    """Share of all rows that are predicted correctly."""

    auc: Estimate
    """Area under the ROC curve of the positive label's score."""

    fpr: RateEstimate
    """False-positive rate: share of the negatives that are predicted positive."""

    fnr: RateEstimate
    """False-negative rate: share of the positives that are predicted negative."""

    groups: list[GroupRates]
    """Error rates by group, sorted by name."""

    caps: list[CapVerdict]
    """Verdict on every cap, in the given order."""

    caps_verdict: Literal["pass", "fail", "inconclusive", "not_applicable"]
    """Verdict on all caps together, as in the bias report."""

    worst_excess: WorstExcess
    """Largest excess over the caps."""

    pareto: bool
    """True if the model is on the Pareto front: no other model has at least its F1 and at most
    its worst excess, and is better in one of the two. Models that are equal in both are on
    the front together; a model without either figure is not. Without caps, F1 alone decides.
    """


@dataclass(kw_only=True, repr=False)
class ComparedCap(Model):
    """A cap that every model is compared with."""

    group: str
    """Group whose rate is capped."""

    metric: Literal["fpr", "fnr"]
    """Error rate that is capped."""

    max: float
    """Cap on the rate, a fraction."""


@dataclass(kw_only=True, repr=False)
class ComparisonData(Model):
    """Rows that all models predicted."""

    dataset_hash: str | None
    """Content hash of the dataset; null outside of the service."""

    split: str
    """Split of the dataset."""

    rows: int
    """Number of rows with a label."""

    positives: int
    """Rows with the positive label."""

    negatives: int
    """Rows with another label."""


@dataclass(kw_only=True, repr=False)
class Pair(Model):
    """Two of the models on the same rows."""

    first: str
    """Entry of the first model."""

    second: str
    """Entry of the second model, which is later in the list."""

    paired: Paired
    """Test of the two models, row by row; p_holm is adjusted over all pairs."""


@dataclass(kw_only=True, repr=False)
class Comparison(Model):
    """Several models on the same rows: metrics, verdicts on caps, and paired tests."""

    schema_version: Literal[1] = 1
    """Version of this schema."""

    data: ComparisonData

    positive_label: str
    """Label that counts as positive."""

    confidence: float
    """Confidence of the intervals and of each one-sided limit."""

    caps: list[ComparedCap]
    """Caps that every model is compared with."""

    min_f1: float | None
    """Required minimum F1; null if there is none."""

    settings_of: str | None
    """Id of the run whose caps, min_f1 and confidence are used: the first one."""

    entries: list[Compared]
    """The models, in the requested order."""

    pairs: list[Pair]
    """Every pair of models, in the order of the entries."""

    warnings: list[ReportWarning]
    """Reasons why figures may be less reliable than they look."""


@dataclass(kw_only=True, repr=False)
class SplitStats(Model):
    """Statistics of one split."""

    rows: int
    """Number of rows."""

    has_labels: bool
    """True if every row of the split has a label."""

    has_groups: bool
    """True if at least one row of the split has a group."""

    labels: dict[str, int]
    """Number of rows per label."""

    groups: dict[str, int]
    """Number of rows per group; rows without a group are not counted."""

    group_labels: dict[str, dict[str, int]]
    """Number of rows per group and, within it, per label."""


@dataclass(kw_only=True, repr=False)
class TextLength(Model):
    """Length of a text, or of all messages of a chat together, in Unicode code points."""

    min: int
    """Length of the shortest text."""

    median: int
    """Median length."""

    p90: int
    """90th percentile of the lengths."""

    p99: int
    """99th percentile of the lengths."""

    max: int
    """Length of the longest text."""


@dataclass(kw_only=True, repr=False)
class DatasetStats(Model):
    """Statistics of a dataset."""

    kind: Literal["text", "messages"]
    """text: labelled texts; messages: chats."""

    rows: int
    """Number of rows in all splits."""

    has_labels: bool
    """True if every row of every split has a label."""

    has_groups: bool
    """True if at least one row has a group."""

    labels: dict[str, int]
    """Number of rows per label, over all splits."""

    groups: dict[str, int]
    """Number of rows per group, over all splits."""

    group_labels: dict[str, dict[str, int]]
    """Number of rows per group and, within it, per label, over all splits."""

    splits: dict[str, SplitStats]
    """Statistics by split, for the splits that have rows."""

    text_length: TextLength
    """Length of a text, or of all messages of a chat together, in characters (Unicode code
    points).
    """

    repeated_rows: int
    """Number of rows whose text occurs earlier in the same split. Texts are compared exactly,
    without surrounding white space; chats without their last message.
    """

    shared_rows: dict[str, int]
    """Number of rows of validation and test whose text also occurs in an earlier split (in the
    order train, validation, test): leakage from training into evaluation.
    """

    conflicting_rows: int
    """Number of rows whose text occurs with another label anywhere in the dataset."""

    zero_weight_rows: int = 0
    """Number of chats with a message of weight 0, which must not be learned: runs on them need
    training.train_on completion.
    """


@dataclass(kw_only=True, repr=False)
class DatasetWarning(Model):
    """DatasetWarning"""

    code: str
    """Stable identifier of the warning, such as shared_rows."""

    detail: str
    """The warning as a sentence."""

    count: int
    """Number of rows affected; 0 if the warning is not about rows."""


@dataclass(kw_only=True, repr=False)
class DroppedRow(Model):
    """DroppedRow"""

    pointer: str
    """JSON pointer: form field, line (from 1) or item (from 0), and column."""

    detail: str
    """The reason."""


@dataclass(kw_only=True, repr=False)
class Dropped(Model):
    """Rows left out because the upload set on_invalid to drop."""

    total: int = 0
    """Number of rows left out."""

    by_kind: dict[str, int] = field(default_factory=dict)
    """Number of rows left out, by the kind of their first problem."""

    rows: list[DroppedRow] = field(default_factory=list)
    """The first 100 problems."""


@dataclass(kw_only=True, repr=False)
class DatasetView(Model):
    """A dataset. Its rows never change after the upload."""

    id: str
    """Identifier of the dataset; a run's `dataset_id`."""

    name: str
    """Name from the upload."""

    content_hash: str
    """SHA-256 of the canonical rows (Parquet)."""

    stats: DatasetStats
    """Row counts by split, label and group; text lengths."""

    warnings: list[DatasetWarning]
    """Findings that may impair training or the report; none of them prevents a run."""

    dropped: Dropped
    """Rows that `on_invalid=drop` left out."""

    created_at: datetime
    """Time of the upload."""


@dataclass(kw_only=True, repr=False)
class EvaluationRequest(Model):
    """Body of POST /v1/runs/{id}/evaluations; omitted fields default to the run's own values."""

    target: Literal["base", "adapter", "checkpoint", "merged"] = "adapter"
    """Weights to score; merged: the model of the run's newest finished merge."""

    step: int | None = None
    """Step of the checkpoint; required with target checkpoint, and refused with others."""

    dataset_id: str | None = None
    """Dataset to score; null: the run's. Its rows may lack labels."""

    split: Literal["train", "validation", "test"] = "test"
    """Split of the dataset to score."""

    template: str | None = None
    """Prompt template; null: the run's, or for the base model its evaluation.baseline_template
    if set.
    """

    max_samples: int | None = None
    """Maximum number of rows to score: those whose ids have the smallest SHA-256, the same rows
    for every run and target. Null: all.
    """


class EvaluationOptions(TypedDict, total=False):
    """Evaluation of the chosen checkpoint, and of the base model, for the report."""

    splits: list[Literal["train", "validation", "test"]]
    """Splits scored after training, each once."""

    baseline: bool
    """Score the base model too, before training."""

    baseline_template: str | None
    """Template under which the base model is scored; null: the run's."""

    threshold: Literal["argmax", "fitted"]
    """argmax: predict the most probable label. fitted: predict the positive label from the
    score that gave the highest F1 within the caps on the validation split.
    """


@dataclass(kw_only=True, repr=False)
class EvaluationSection(Model):
    """Evaluation of the chosen checkpoint, and of the base model, for the report."""

    splits: list[Literal["train", "validation", "test"]] = field(default_factory=list)
    """Splits scored after training, each once."""

    baseline: bool = True
    """Score the base model too, before training."""

    baseline_template: str | None = None
    """Template under which the base model is scored; null: the run's."""

    threshold: Literal["argmax", "fitted"] = "argmax"
    """argmax: predict the most probable label. fitted: predict the positive label from the
    score that gave the highest F1 within the caps on the validation split.
    """


@dataclass(kw_only=True, repr=False)
class Failure(Model):
    """Reason why a job failed, with advice."""

    reason: FailureReason
    """Stable identifier of the reason."""

    detail: str
    """Description of this failure."""

    advice: str
    """Suggested next step."""

    retryable: bool
    """True if retrying the same job unchanged may succeed."""


@dataclass(kw_only=True, repr=False)
class EvaluationView(Model):
    """An evaluation: a model's predictions on a split, and the metrics computed from them."""

    id: str
    """Identifier."""

    job_id: str
    """Identifier of the evaluation's own job; for an evaluation that the run made itself, of
    the run's job.
    """

    status: JobStatus
    """State of the job."""

    phase: str
    """Current activity of the job's program."""

    percent: float
    """Scored share of the rows, 0 to 100."""

    eta_seconds: float | None
    """Estimated seconds until the end; null while unknown."""

    queue_position: int | None
    """Position in the queue, 1 being next; 1,000 stands for every later one, too; null unless
    queued.
    """

    requested: JobRequest | None
    """Pending request to a running job; null if there is none."""

    attempts: int
    """Number of times that a worker has started the job; a stopped worker's attempt does not
    count.
    """

    eval_batch_size: int | None
    """Rows per forward pass, if memory did not suffice for per_device_eval_batch_size; the
    results do not depend on it.
    """

    failure: Failure | None
    """Reason why the job failed; null if it has not."""

    created_at: datetime
    """Time of the request."""

    started_at: datetime | None
    """Time of the first start; null before it."""

    finished_at: datetime | None
    """Time of the end; null before it."""

    target: str
    """Scored model: base, adapter, checkpoint or merged."""

    step: int | None
    """Optimizer step of the scored weights; null for the base model."""

    merge_id: str | None
    """Merge whose model was scored, if the target is merged."""

    dataset_id: str
    """Dataset of the scored rows."""

    split: str
    """Split of the scored rows: train, validation or test."""

    template: str
    """Prompt template."""

    max_samples: int | None
    """Maximum number of rows; null: all rows of the split."""

    metrics: dict[str, float | None]
    """Metrics by name; empty until the evaluation has succeeded, and if no row has a label."""

    superseded: bool
    """True if the run was rewound past the scored weights: its metrics and predictions are
    deleted.
    """


@dataclass(kw_only=True, repr=False)
class EventView(Model):
    """An event of a run."""

    id: int
    """Number within the run, from 1; the value of Last-Event-ID."""

    type: str
    """status, phase, metrics, checkpoint, evaluation, artifact, warning, log, rewound, promoted
    or withdrawn.
    """

    job_id: str
    """Identifier of the job that the event belongs to."""

    created_at: datetime
    """Time of the event."""

    data: dict[str, Any]
    """Content, depending on the type."""


@dataclass(kw_only=True, repr=False)
class EventList(Model):
    """Events of a run, oldest first."""

    data: list[EventView]
    """Events, oldest first."""

    has_more: bool
    """True if further events follow."""

    next: int | None
    """Value of `after` for the next page; null on the last page."""


class FairnessOptions(TypedDict, total=False):
    """Release criteria, and how the report judges them."""

    positive_label: str
    """Label that counts as positive."""

    caps: list[CapOptions]
    """Release limits on groups' error rates, at most one for each group and metric. Omitted in
    a request: those of the preset; []: none.
    """

    min_f1: float | None
    """Minimum overall F1 for a release; null: none. Omitted in a request: that of the preset."""

    confidence: float
    """Confidence level of intervals and verdicts."""

    min_support: int
    """Groups with fewer negatives (FPR) or positives (FNR) are flagged as small in the report."""

    select: Literal["best_metric", "best_f1_within_caps"]
    """Checkpoint used by load_best_model_at_end: the one with the lowest eval_loss, or the one
    with the highest F1 among those that satisfy every cap and min_f1 on the validation
    split, by point estimates.
    """


@dataclass(kw_only=True, repr=False)
class FairnessSection(Model):
    """Release criteria, and how the report judges them."""

    positive_label: str = "hate"
    """Label that counts as positive."""

    caps: list[Cap] = field(default_factory=list)
    """Release limits on groups' error rates, at most one for each group and metric. Omitted in
    a request: those of the preset; []: none.
    """

    min_f1: float | None = None
    """Minimum overall F1 for a release; null: none. Omitted in a request: that of the preset."""

    confidence: float = 0.95
    """Confidence level of intervals and verdicts."""

    min_support: int = 30
    """Groups with fewer negatives (FPR) or positives (FNR) are flagged as small in the report."""

    select: Literal["best_metric", "best_f1_within_caps"] = "best_metric"
    """Checkpoint used by load_best_model_at_end: the one with the lowest eval_loss, or the one
    with the highest F1 among those that satisfy every cap and min_f1 on the validation
    split, by point estimates.
    """


@dataclass(kw_only=True, repr=False)
class FieldProblem(Model):
    """An invalid field."""

    pointer: str
    """JSON pointer (RFC 6901) into the body; or form field, line and column of an uploaded
    file; or /query/NAME, /header/NAME.
    """

    detail: str
    """Description of the error."""


@dataclass(kw_only=True, repr=False)
class Health(Model):
    """Liveness of the API process."""

    status: Literal["ok"]
    """Always `ok`."""

    version: str
    """Version of Fairtune."""


@dataclass(kw_only=True, repr=False)
class Hindrance(Model):
    """One reason why a certifying report does not let its run be promoted."""

    kind: Literal["no_report", "exploratory", "not_test", "cap", "no_cap_applies", "min_f1"]
    """Kind of obstacle. cap, min_f1: the figure does not meet the limit, on all rows or without
    those that the model has seen. no_cap_applies: the run has no caps, or none applies.
    not_test: the rows are not those of an unseen test split.
    """

    detail: str
    """The obstacle as a sentence, with the figures."""

    group: str | None = None
    """The cap's group; null for other kinds."""

    metric: Literal["fpr", "fnr"] | None = None
    """The cap's error rate; null for other kinds."""

    limit: float | None = None
    """The cap, or the minimum F1."""

    observed: float | None = None
    """The measured figure; null if it cannot be computed."""

    verdict: str | None = None
    """Verdict in the report."""

    needed_further: int | None = None
    """For an inconclusive cap: the minimum number of further negatives (fpr) or positives (fnr)
    at the observed rate that would settle it; null if no number would.
    """

    would_settle: Literal["pass", "fail"] | None = None
    """Verdict after needed_further more rows."""


@dataclass(kw_only=True, repr=False)
class KeyRequest(Model):
    """Parameters of a new API key."""

    name: str
    """Name of the key; events record it. A name is never reused. Printable characters, no
    blanks at either end.
    """

    role: Role
    """viewer may read and request reports; operator may also write; admin may also manage keys."""

    expires_in_seconds: int | None = None
    """Lifetime of the key; by default it never expires."""


@dataclass(kw_only=True, repr=False)
class KeyView(Model):
    """An API key, without its token."""

    id: str
    """Identifier of the key."""

    name: str
    """Name of the key."""

    role: Role
    """Permissions of the key."""

    state: KeyState
    """Only an active key grants access."""

    created_at: datetime
    """Time of creation."""

    expires_at: datetime | None
    """Time of expiry; null: never."""

    revoked_at: datetime | None
    """Time of revocation; null if not revoked."""

    last_used_at: datetime | None
    """Time of the last use, up to a minute old; null if never used."""


class LoraOptions(TypedDict, total=False):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685)."""

    r: int
    """Rank of the update matrices."""

    lora_alpha: int
    """Scale of the update: it is multiplied by lora_alpha / r."""

    lora_dropout: float
    """Dropout probability on the adapters' input."""

    target_parameters: list[str]
    """Names of weights outside linear layers that get an adapter, such as the experts of
    mixture-of-experts models: mlp.experts.gate_up_proj. Requires lora_dropout 0 and use_dora
    false.
    """

    target_modules: list[str] | Literal["all-linear"]
    """Names of the layers that get an adapter, or all-linear. May be empty only if
    target_parameters is not.
    """

    bias: Literal["none", "all", "lora_only"]
    """Bias parameters to train: none, all, or those of adapted layers."""

    use_rslora: bool
    """Scale the update by lora_alpha / sqrt(r) instead (arXiv:2312.03732)."""

    use_dora: bool
    """Use weight-decomposed LoRA (arXiv:2402.09353)."""


@dataclass(kw_only=True, repr=False)
class LoraSection(Model):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685)."""

    r: int = 32
    """Rank of the update matrices."""

    lora_alpha: int = 32
    """Scale of the update: it is multiplied by lora_alpha / r."""

    lora_dropout: float = 0.05
    """Dropout probability on the adapters' input."""

    target_parameters: list[str] = field(default_factory=list)
    """Names of weights outside linear layers that get an adapter, such as the experts of
    mixture-of-experts models: mlp.experts.gate_up_proj. Requires lora_dropout 0 and use_dora
    false.
    """

    target_modules: list[str] | Literal["all-linear"] = field(default_factory=list)
    """Names of the layers that get an adapter, or all-linear. May be empty only if
    target_parameters is not.
    """

    bias: Literal["none", "all", "lora_only"] = "none"
    """Bias parameters to train: none, all, or those of adapted layers."""

    use_rslora: bool = False
    """Scale the update by lora_alpha / sqrt(r) instead (arXiv:2312.03732)."""

    use_dora: bool = False
    """Use weight-decomposed LoRA (arXiv:2402.09353)."""


@dataclass(kw_only=True, repr=False)
class MergeComparison(Model):
    """Row-by-row comparison, on the same sample, of the merged model with the adapter on its
    base model as the run loads it.
    """

    rows: int
    """Number of rows compared."""

    split: str
    """Split of the run's dataset from which the rows come."""

    labels_changed: int | None
    """Rows whose argmax label differs between the two; null: the run has no labels."""

    max_difference: float
    """Maximum difference in a label's probability; without labels, in the mean log-likelihood
    of the completion's tokens, in nats.
    """

    mean_difference: float
    """Mean over rows of the row's maximum difference."""


@dataclass(kw_only=True, repr=False)
class MergeRequest(Model):
    """Body of POST /v1/runs/{id}/merged; omitted fields take their defaults."""

    checkpoint: int | None = None
    """Step of the checkpoint to merge; null: the run's adapter."""

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Data type of the merged weights. Weights that the base model stores in float32 beside
    16-bit ones stay float32.
    """

    max_shard_size: str = "5GB"
    """Maximum size of a weight file, in the notation of transformers: 500MB, 5GB, 2GiB; from
    1MB to 1000GB. A single larger weight gets its own file.
    """

    base_weights: Literal["original", "dequantized"] = "original"
    """original: merge into the base model's own weights. dequantized: merge into weights
    quantized to 4 bits and back, as seen in training; only for runs with load_in_4bit.
    """


@dataclass(kw_only=True, repr=False)
class MergeView(Model):
    """A merge: adapter weights added to the base model's weights."""

    id: str
    """Identifier."""

    job_id: str
    """Identifier of the job, as in the run's events."""

    status: JobStatus
    """State of the job."""

    phase: str
    """evaluating, merging, evaluating and saving, in this order."""

    percent: float
    """Completed share of the weights to write and the rows to compare, 0 to 100."""

    eta_seconds: float | None
    """Estimated seconds until the end; null while unknown."""

    queue_position: int | None
    """Position in the queue, 1 being next; 1,000 stands for every later one, too; null unless
    queued.
    """

    requested: JobRequest | None
    """Pending request to a running job; null if there is none."""

    attempts: int
    """Number of times that a worker has started the job; a stopped worker's attempt does not
    count.
    """

    eval_batch_size: int | None
    """Rows per forward pass, if memory did not suffice for per_device_eval_batch_size; the
    results do not depend on it.
    """

    failure: Failure | None
    """Reason why the job failed; null if it has not."""

    created_at: datetime
    """Time of the request."""

    started_at: datetime | None
    """Time of the first start; null before it."""

    finished_at: datetime | None
    """Time of the end; null before it."""

    target: str
    """Merged weights: adapter or checkpoint."""

    step: int
    """Optimizer step of the merged weights."""

    dtype: Literal["bfloat16", "float16", "float32"]
    """Number format of the merged weights."""

    base_weights: Literal["original", "dequantized"]
    """Base weights that the adapter is merged into: the original ones, or those that training
    used after 4-bit quantization.
    """

    max_shard_bytes: int
    """Maximum size of a weight file in bytes."""

    comparison: MergeComparison | None
    """Difference from the adapter's scores; null until the merge has succeeded."""

    files: list[FileEntry]
    """Files of the merged model, each also at GET …/artifacts/merged/{id}/{path}; empty until
    the merge has succeeded.
    """

    size: int | None
    """Total size of the files in bytes; null without files."""

    superseded: bool
    """True if the run was rewound past the merged weights: the model is deleted."""


@dataclass(kw_only=True, repr=False)
class MessageView(Model):
    """A message of a chat."""

    role: str
    """Author of the message: system, user or assistant."""

    content: str
    """Text of the message."""

    weight: int = 1
    """0 if the message must not be learned, otherwise 1."""


@dataclass(kw_only=True, repr=False)
class MetricPoint(Model):
    """A metric's value at an optimizer step."""

    step: int
    """Optimizer step."""

    epoch: float
    """Epochs completed at that step."""

    value: float
    """Value of the metric."""


@dataclass(kw_only=True, repr=False)
class MetricSeries(Model):
    """Metric series of a run."""

    series: dict[str, list[MetricPoint]]
    """Points by ascending step, by name of the metric."""

    stored_points: dict[str, int] = field(default_factory=dict)
    """Number of points of the window that are stored, by name of the metric."""

    thinned: bool = False
    """True if a series was thinned to max_points: kept are its first and last point and, of
    equally long sections between them, the points with the smallest and the largest value.
    """

    next_step: int | None = None
    """With limit: from_step of the next request; null if the answer is complete."""


@dataclass(kw_only=True, repr=False)
class ModelView(Model):
    """A base model that is available without a model hub."""

    name: str
    """Value of a run's `base_model` field."""

    source: str
    """`directory`: in the models directory; `bundled`: in an installed Python package."""


@dataclass(kw_only=True, repr=False)
class NewKeyView(Model):
    """A new API key with its token."""

    id: str
    """Identifier of the key."""

    name: str
    """Name of the key."""

    role: Role
    """Permissions of the key."""

    state: KeyState
    """Only an active key grants access."""

    created_at: datetime
    """Time of creation."""

    expires_at: datetime | None
    """Time of expiry; null: never."""

    revoked_at: datetime | None
    """Time of revocation; null if not revoked."""

    last_used_at: datetime | None
    """Time of the last use, up to a minute old; null if never used."""

    token: str
    """Bearer token for the Authorization header. It is shown only once."""


@dataclass(kw_only=True, repr=False)
class Override(Model):
    """Promotion although the certifying report does not pass."""

    reason: str
    """Reason for the override; stored with the promotion, its author and the obstacles."""


@dataclass(kw_only=True, repr=False)
class OverrideView(Model):
    """An override of the release gate."""

    reason: str
    """Reason from the request."""

    overrode: list[Hindrance]
    """Obstacles at the time of the promotion; empty if there were none."""


@dataclass(kw_only=True, repr=False)
class PlanWarningView(Model):
    """A warning of a plan."""

    code: str
    """Stable identifier of the warning, such as long_warmup."""

    detail: str
    """The warning as a sentence."""


class QuantizationOptions(TypedDict, total=False):
    """4-bit base weights through bitsandbytes (Dettmers et al. 2023, arXiv:2305.14314)."""

    load_in_4bit: bool
    """Load the base model's linear layers in 4 bits."""

    bnb_4bit_quant_type: Literal["nf4", "fp4"]
    """4-bit data type: NormalFloat or floating point."""

    bnb_4bit_compute_dtype: Literal["bfloat16", "float16", "float32"]
    """Data type that weights are dequantized to for computation."""

    bnb_4bit_use_double_quant: bool
    """Quantize the quantization constants too, saving about 0.4 bits a weight."""


@dataclass(kw_only=True, repr=False)
class QuantizationSection(Model):
    """4-bit base weights through bitsandbytes (Dettmers et al. 2023, arXiv:2305.14314)."""

    load_in_4bit: bool = True
    """Load the base model's linear layers in 4 bits."""

    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """4-bit data type: NormalFloat or floating point."""

    bnb_4bit_compute_dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Data type that weights are dequantized to for computation."""

    bnb_4bit_use_double_quant: bool = True
    """Quantize the quantization constants too, saving about 0.4 bits a weight."""


class ResourcesOptions(TypedDict, total=False):
    """Hardware that the run uses."""

    num_processes: int
    """Processes that train together on one machine, each on its own GPU if there are GPUs. The
    effective batch size is proportional to it.
    """


@dataclass(kw_only=True, repr=False)
class ResourcesSection(Model):
    """Hardware that the run uses."""

    num_processes: int = 1
    """Processes that train together on one machine, each on its own GPU if there are GPUs. The
    effective batch size is proportional to it.
    """


class TrainingOptions(TypedDict, total=False):
    """Optimization, batches, evaluation during training, and checkpoints.

    load_best_model_at_end requires a checkpoint at each evaluation: save_strategy and
    save_steps with the values of eval_strategy and eval_steps, unless eval_strategy is no.
    """

    learning_rate: float
    """Peak learning rate, reached at the end of the warm-up."""

    num_train_epochs: float | None
    """Passes over the training rows. Set exactly one of num_train_epochs and max_steps."""

    max_steps: int | None
    """Optimizer steps, instead of num_train_epochs."""

    per_device_train_batch_size: int
    """Rows per process in one forward and backward pass."""

    per_device_eval_batch_size: int
    """Rows per process in one forward pass of an evaluation."""

    gradient_accumulation_steps: int
    """Micro-batches per optimizer step."""

    warmup_steps: int | None
    """Optimizer steps of learning-rate warm-up. Set at most one of warmup_steps and
    warmup_ratio.
    """

    warmup_ratio: float | None
    """Warm-up as a fraction of all steps, instead of warmup_steps."""

    weight_decay: float
    """Decoupled weight decay of AdamW."""

    max_grad_norm: float
    """Maximum gradient norm; larger gradients are clipped. 0: no clipping."""

    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    """Learning-rate schedule after the warm-up."""

    optim: Literal["adamw_torch"]
    """Optimizer."""

    max_seq_length: int
    """Maximum tokens of prompt and completion; longer texts are truncated."""

    bf16: bool
    """Train in bfloat16; false trains in float32."""

    gradient_checkpointing: bool
    """Recompute activations in the backward pass to save memory."""

    train_on: Literal["completion", "all"]
    """Tokens in the loss: the completion only, or the prompt too."""

    packing: Literal["shared_prefix", "none"]
    """shared_prefix: the prompts' common prefix is computed once per micro-batch of at most
    per_device_train_batch_size x max_seq_length tokens. none: rows are padded to the longest
    of their micro-batch.
    """

    early_stopping_patience: int
    """Evaluations without improvement after which training stops; 0: off, as eval_strategy no
    requires.
    """

    early_stopping_threshold: float
    """Minimum absolute decrease of the loss that counts as improvement."""

    logging_steps: int
    """Optimizer steps between two records of the training metrics."""

    eval_strategy: Literal["epoch", "steps", "no"]
    """When to evaluate during training."""

    eval_steps: int | None
    """Optimizer steps between evaluations; required with eval_strategy steps, and refused with
    others.
    """

    save_strategy: Literal["epoch", "steps", "no"]
    """When to write a checkpoint."""

    save_steps: int | None
    """Optimizer steps between checkpoints; required with save_strategy steps, and refused with
    others.
    """

    save_total_limit: int
    """Maximum number of checkpoints kept; the best one is always kept."""

    load_best_model_at_end: bool
    """Use the best checkpoint as the adapter instead of the last one."""

    metric_for_best_model: Literal["eval_loss"]
    """Metric by which checkpoints are compared."""

    greater_is_better: Literal[False]
    """Must be false: a lower eval_loss is better."""

    dataloader_num_workers: int
    """Must be 0: rows are tokenized before training."""


@dataclass(kw_only=True, repr=False)
class TrainingSection(Model):
    """Optimization, batches, evaluation during training, and checkpoints.

    load_best_model_at_end requires a checkpoint at each evaluation: save_strategy and
    save_steps with the values of eval_strategy and eval_steps, unless eval_strategy is no.
    """

    learning_rate: float = 0.0002
    """Peak learning rate, reached at the end of the warm-up."""

    num_train_epochs: float | None = 3
    """Passes over the training rows. Set exactly one of num_train_epochs and max_steps."""

    max_steps: int | None = None
    """Optimizer steps, instead of num_train_epochs."""

    per_device_train_batch_size: int = 4
    """Rows per process in one forward and backward pass."""

    per_device_eval_batch_size: int = 4
    """Rows per process in one forward pass of an evaluation."""

    gradient_accumulation_steps: int = 4
    """Micro-batches per optimizer step."""

    warmup_steps: int | None = 100
    """Optimizer steps of learning-rate warm-up. Set at most one of warmup_steps and
    warmup_ratio.
    """

    warmup_ratio: float | None = None
    """Warm-up as a fraction of all steps, instead of warmup_steps."""

    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""

    max_grad_norm: float = 1.0
    """Maximum gradient norm; larger gradients are clipped. 0: no clipping."""

    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    """Learning-rate schedule after the warm-up."""

    optim: Literal["adamw_torch"] = "adamw_torch"
    """Optimizer."""

    max_seq_length: int = 512
    """Maximum tokens of prompt and completion; longer texts are truncated."""

    bf16: bool = True
    """Train in bfloat16; false trains in float32."""

    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass to save memory."""

    train_on: Literal["completion", "all"] = "completion"
    """Tokens in the loss: the completion only, or the prompt too."""

    packing: Literal["shared_prefix", "none"] = "shared_prefix"
    """shared_prefix: the prompts' common prefix is computed once per micro-batch of at most
    per_device_train_batch_size x max_seq_length tokens. none: rows are padded to the longest
    of their micro-batch.
    """

    early_stopping_patience: int = 2
    """Evaluations without improvement after which training stops; 0: off, as eval_strategy no
    requires.
    """

    early_stopping_threshold: float = 0.01
    """Minimum absolute decrease of the loss that counts as improvement."""

    logging_steps: int = 10
    """Optimizer steps between two records of the training metrics."""

    eval_strategy: Literal["epoch", "steps", "no"] = "epoch"
    """When to evaluate during training."""

    eval_steps: int | None = None
    """Optimizer steps between evaluations; required with eval_strategy steps, and refused with
    others.
    """

    save_strategy: Literal["epoch", "steps", "no"] = "epoch"
    """When to write a checkpoint."""

    save_steps: int | None = None
    """Optimizer steps between checkpoints; required with save_strategy steps, and refused with
    others.
    """

    save_total_limit: int = 3
    """Maximum number of checkpoints kept; the best one is always kept."""

    load_best_model_at_end: bool = True
    """Use the best checkpoint as the adapter instead of the last one."""

    metric_for_best_model: Literal["eval_loss"] = "eval_loss"
    """Metric by which checkpoints are compared."""

    greater_is_better: Literal[False] = False
    """Must be false: a lower eval_loss is better."""

    dataloader_num_workers: int = 0
    """Must be 0: rows are tokenized before training."""


@dataclass(kw_only=True, repr=False)
class RunSpec(Model):
    """Specification of a run.

    In a request, omitted fields take the value of the preset, and if that has none, the
    default shown here; GET /v1/presets lists the values of the presets. In an answer, every
    field has its final value.
    """

    name: str | None = None
    """Name for people; null: composed of preset and base model."""

    preset: str = "default"
    """Preset whose values the request overrides; see GET /v1/presets."""

    base_model: str = "openai/gpt-oss-20b"
    """Hub id, or name of a directory below the models directory."""

    dataset_id: str
    """Dataset to train and evaluate on."""

    template: str = "hate_speech_simple"
    """Prompt template; see GET /v1/templates."""

    seed: int = 42
    """Seed of initialization, shuffling, dropout and sampling."""

    tags: list[str] = field(default_factory=list)
    """Free labels by which runs can be listed."""

    lora: LoraSection = field(default_factory=LoraSection)
    """Low-rank adapters."""

    quantization: QuantizationSection = field(default_factory=QuantizationSection)
    """4-bit weights of the base model."""

    training: TrainingSection = field(default_factory=TrainingSection)
    """Optimization, batches and checkpoints."""

    fairness: FairnessSection = field(default_factory=FairnessSection)
    """Release criteria."""

    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    """Scoring after training, for the report."""

    resources: ResourcesSection = field(default_factory=ResourcesSection)
    """Hardware."""


@dataclass(kw_only=True, repr=False)
class PlanView(Model):
    """The plan that a dry run returns."""

    spec: RunSpec
    """Resolved specification."""

    effective_batch_size: int
    """Samples per optimizer step: per_device_train_batch_size * gradient_accumulation_steps *
    num_processes.
    """

    steps_per_epoch: int
    """Optimizer steps per epoch."""

    total_steps: int
    """Planned optimizer steps."""

    warnings: list[str]
    """Settings that are likely mistakes, such as a warm-up longer than a third of the training."""

    coded_warnings: list[PlanWarningView] = field(default_factory=list)
    """The same warnings, each with a stable code."""


@dataclass(kw_only=True, repr=False)
class Prediction(Model):
    """Prediction for one text."""

    label: str
    """Predicted label."""

    score: float
    """Probability of the positive label."""

    probabilities: dict[str, float]
    """Probability of each label; they sum to 1."""

    truncated: bool
    """True if the text was too long, so that its end was cut off."""


@dataclass(kw_only=True, repr=False)
class PredictionRequest(Model):
    """Body of POST /v1/runs/{id}/predictions; omitted fields default to the run's own values."""

    messages: list[list[ChatTurn]] | None = None
    """Chats to classify, in this order, each up to a user's turn, the last; for a run that was
    trained on chats, instead of `texts`. Each label is scored by the answer that it had in
    training.
    """

    texts: list[str] | None = None
    """Texts to classify, in this order; for a run that was trained on texts, instead of
    `messages`.
    """

    target: Literal["adapter", "checkpoint", "merged"] = "adapter"
    """Weights to use; merged: the model of the run's newest finished merge."""

    step: int | None = None
    """Step of the checkpoint; required with target checkpoint, and refused with others."""

    template: str | None = None
    """Prompt template; null: the run's."""

    threshold: Literal["argmax"] | float | None = None
    """argmax: predict the most probable label. A number: predict the positive label from that
    score on. Null: as the run's specification says, with the threshold fitted for its
    report.
    """


@dataclass(kw_only=True, repr=False)
class PredictionsEntry(Model):
    """A prediction job without its texts and results."""

    id: str
    """Identifier."""

    job_id: str
    """Identifier of the job, as in the run's events."""

    status: JobStatus
    """State of the job."""

    phase: str
    """Current activity of the job's program."""

    percent: float
    """Scored share of the texts, 0 to 100."""

    eta_seconds: float | None
    """Estimated seconds until the end; null while unknown."""

    queue_position: int | None
    """Position in the queue of predictions, 1 being next; 1,000 stands for every later one,
    too; null unless queued.
    """

    requested: JobRequest | None
    """Pending request to a running job; null if there is none."""

    attempts: int
    """Number of times that a worker has started the job; a stopped worker's attempt does not
    count.
    """

    eval_batch_size: int | None
    """Rows per forward pass, if memory did not suffice for per_device_eval_batch_size; the
    results do not depend on it.
    """

    failure: Failure | None
    """Reason why the job failed; null if it has not."""

    created_at: datetime
    """Time of the request."""

    started_at: datetime | None
    """Time of the first start; null before it."""

    finished_at: datetime | None
    """Time of the end; null before it."""

    target: str
    """Model: adapter, checkpoint or merged."""

    step: int
    """Optimizer step of the weights."""

    merge_id: str | None
    """Merge whose model is used, if the target is merged."""

    template: str
    """Prompt template."""

    positive_label: str
    """Label that scores and threshold refer to."""

    threshold: float | None
    """Minimum score at which a text is classified as positive; null: the most probable label
    wins (argmax).
    """


@dataclass(kw_only=True, repr=False)
class PredictionsView(Model):
    """A prediction job with its results."""

    id: str
    """Identifier."""

    job_id: str
    """Identifier of the job, as in the run's events."""

    status: JobStatus
    """State of the job."""

    phase: str
    """Current activity of the job's program."""

    percent: float
    """Scored share of the texts, 0 to 100."""

    eta_seconds: float | None
    """Estimated seconds until the end; null while unknown."""

    queue_position: int | None
    """Position in the queue of predictions, 1 being next; 1,000 stands for every later one,
    too; null unless queued.
    """

    requested: JobRequest | None
    """Pending request to a running job; null if there is none."""

    attempts: int
    """Number of times that a worker has started the job; a stopped worker's attempt does not
    count.
    """

    eval_batch_size: int | None
    """Rows per forward pass, if memory did not suffice for per_device_eval_batch_size; the
    results do not depend on it.
    """

    failure: Failure | None
    """Reason why the job failed; null if it has not."""

    created_at: datetime
    """Time of the request."""

    started_at: datetime | None
    """Time of the first start; null before it."""

    finished_at: datetime | None
    """Time of the end; null before it."""

    target: str
    """Model: adapter, checkpoint or merged."""

    step: int
    """Optimizer step of the weights."""

    merge_id: str | None
    """Merge whose model is used, if the target is merged."""

    template: str
    """Prompt template."""

    positive_label: str
    """Label that scores and threshold refer to."""

    threshold: float | None
    """Minimum score at which a text is classified as positive; null: the most probable label
    wins (argmax).
    """

    predictions: list[Prediction] | None
    """One result per text, in the order of the request; null until the job has succeeded."""


@dataclass(kw_only=True, repr=False)
class PresetView(Model):
    """A named set of default values for a run."""

    name: str
    """Value of a run's `preset` field."""

    description: str
    """Purpose of the preset."""

    values: dict[str, Any]
    """Fields that the preset sets."""

    spec: dict[str, Any]
    """Every field with its value under this preset."""


@dataclass(kw_only=True, repr=False)
class Problem(Model):
    """An error (RFC 9457)."""

    type: str
    """Stable identifier of the kind of error."""

    title: str
    """Summary of the kind of error."""

    status: int
    """HTTP status code."""

    detail: str
    """Description of this error."""

    errors: list[FieldProblem] | None = None
    """Invalid fields of the request."""

    hindrances: list[Hindrance] | None = None
    """With urn:fairtune:not-releasable: every obstacle to the promotion."""


@dataclass(kw_only=True, repr=False)
class PromotionRequest(Model):
    """Body of POST /v1/runs/{id}/promote."""

    name: str
    """Name under which the run is served."""

    stage: str = "production"
    """Stage of that name, such as production."""

    override: Override | None = None
    """Promote even if the certifying report does not pass; null: refuse then."""


@dataclass(kw_only=True, repr=False)
class PromotionView(Model):
    """The assignment of a release name to a run."""

    id: str
    """Identifier of the promotion."""

    name: str
    """Release name."""

    stage: str
    """Stage of the release, such as staging or production."""

    run_id: str
    """Promoted run."""

    is_current: bool
    """True if the run has the name now."""

    override: OverrideView | None
    """Override of the release gate; null if the certifying report passed."""

    report_sha256: str | None
    """SHA-256 of the certifying bias_report.json; null if the run has none."""

    created_by: str | None
    """Name of the API key of the request; null without authentication."""

    created_at: datetime
    """Time of the promotion."""

    superseded_at: datetime | None
    """Time at which the run lost the name, to another run or by withdrawal; null if current."""

    withdrawn_at: datetime | None = None
    """Time of the withdrawal; null if the name was not withdrawn."""

    withdrawn_by: str | None = None
    """Name of the API key that withdrew it; null without authentication."""


@dataclass(kw_only=True, repr=False)
class Readiness(Model):
    """Readiness of the API process and of the components that it needs."""

    status: Literal["ok", "not ready"]
    """`ok` if every component is."""

    parts: dict[str, str]
    """State of each component (database, schema, broker, store): `ok` or the problem. The
    server's log has details.
    """


@dataclass(kw_only=True, repr=False)
class ReportRequest(Model):
    """Options of a report; omitted fields take the run's own values."""

    caps: list[Cap] | None = None
    """Release limits, at most one for each group and metric; omitted: the run's; []: none."""

    confidence: float | None = None
    """Confidence level of intervals and verdicts; omitted: the run's."""

    min_f1: float | None = None
    """Minimum overall F1; omitted: the run's; null: none."""

    min_support: int | None = None
    """Groups with fewer negatives (FPR) or positives (FNR) are flagged as small; omitted: the
    run's.
    """

    threshold: Literal["argmax", "fitted"] | float | None = None
    """argmax: predict the most probable label. fitted: predict the positive label from the
    score that gives the highest F1 within the caps on the run's validation split. A number:
    predict the positive label from that score on. Omitted: the run's evaluation.threshold.
    """

    base_evaluation: str | None = None
    """Id of an evaluation of the base model on the same rows, for comparison. Omitted: the
    run's own, if it is on the same rows; null: none.
    """


@dataclass(kw_only=True, repr=False)
class RowView(Model):
    """A canonical row: either `text` or `messages` is set."""

    id: str
    """Identifier of the row within its dataset."""

    split: str
    """train, validation or test."""

    text: str | None
    """Text to classify; null for a chat."""

    messages: list[MessageView] | None
    """Messages of a chat, the answer last; null for a text."""

    label: str | None
    """Gold label; null if the row is unlabelled."""

    group: str | None
    """Group that the row is about; null if unknown."""

    source: str | None
    """Data set that the row was taken from."""

    detail: str | None
    """Finer label, such as a functionality of HateCheck."""

    rationale: str | None
    """Annotators' explanation of the label."""


@dataclass(kw_only=True, repr=False)
class RunView(Model):
    """A fine-tuning run and its progress."""

    id: str
    """Identifier of the run."""

    name: str
    """Name from the request, or a generated one."""

    status: JobStatus
    """State of the run."""

    phase: str
    """Current activity: starting, loading, baseline, training, evaluating, saving, reporting or
    done.
    """

    step: int
    """Completed optimizer steps."""

    total_steps: int
    """Planned optimizer steps."""

    percent: float
    """Progress over all phases, 0 to 100: loading the model and scoring the base model end at
    10, training at 90, and 100 means that the run has succeeded.
    """

    epoch: float
    """Completed epochs."""

    eta_seconds: float | None
    """Estimated seconds until the report; null while unknown."""

    samples_per_second: float | None
    """Current training speed; null while unknown."""

    queue_position: int | None
    """Position in the queue, 1 being next; 1,000 stands for every later one, too; null unless
    queued.
    """

    requested: JobRequest | None
    """Pending request to a running run; null if there is none."""

    attempts: int
    """Number of times that a worker has started the run; a stopped worker's attempt does not
    count.
    """

    train_batch_size: int | None
    """Rows per forward pass, if memory did not suffice for per_device_train_batch_size; the
    effective batch size is the same.
    """

    eval_batch_size: int | None
    """Rows per forward pass of evaluations, if memory did not suffice for
    per_device_eval_batch_size; the results do not depend on it.
    """

    metrics: dict[str, float]
    """Latest value of each metric."""

    failure: Failure | None
    """Reason why the run failed; null if it has not."""

    origin: Literal["trained", "imported"] = "trained"
    """trained: by this service. imported: its adapter was uploaded, see GET /v1/adapters/{id};
    no training took place.
    """

    cloned_from: str | None
    """Run that this run was cloned from."""

    created_by: str | None
    """Name of the API key of the request; null without authentication."""

    promoted_as: list[str]
    """Current release names, as name@stage."""

    spec: RunSpec
    """Resolved specification."""

    created_at: datetime
    """Time of the request."""

    started_at: datetime | None
    """Time of the first start; null before it."""

    finished_at: datetime | None
    """Time of the end; null before it."""


@dataclass(kw_only=True, repr=False)
class Template(Model):
    """A chat of one turn. ``$text`` and ``$group`` in `user`, ``$label`` in `completion`.

    Invariant: `user` holds ``$text`` exactly once, `completion` holds ``$label`` exactly
    once, the label words differ, and no pattern names any other placeholder.
    """

    name: str
    """Name in `template`."""

    description: str
    """Purpose of the template."""

    system: str | None
    """System turn; null: none."""

    user: str
    """User turn, with $text and optionally $group."""

    completion: str
    """Assistant turn, with $label."""

    labels: dict[str, str] | None
    """Word in the completion for each label of the data; null: the label itself."""
