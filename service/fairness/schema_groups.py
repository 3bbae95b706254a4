"""Models of a bias report by group and other strata, and of the differences between groups.

A figure that cannot be computed is null, with a reason. Rates are fractions in [0, 1], counts are
rows, and labels are the positive label versus all others.
"""

from __future__ import annotations

from pydantic import Field

from service.fairness.schema_base import Confusion, Estimate, RateEstimate, ReportModel


class GroupMetrics(ReportModel):
    """Metrics of one model on one group, or on another stratum of the rows."""

    confusion: Confusion = Field(description="Confusion matrix of the group.")
    fpr: RateEstimate = Field(
        description="False-positive rate: share of the group's negatives that are predicted "
        "positive."
    )
    fnr: RateEstimate = Field(
        description="False-negative rate: share of the group's positives that are predicted "
        "negative."
    )
    accuracy: RateEstimate = Field(
        description="Share of the group's rows that are predicted correctly."
    )


class GroupAuc(ReportModel):
    """ROC AUC of a group against the background (Borkan et al. 2019, arXiv:1903.04561)."""

    subgroup: Estimate = Field(
        description="Subgroup AUC: the group's positives versus its negatives."
    )
    bpsn: Estimate = Field(
        description="Background positive, subgroup negative AUC: positives of all other rows "
        "versus the group's negatives. It is low if the group's negatives score as high as "
        "positives elsewhere."
    )
    bnsp: Estimate = Field(
        description="Background negative, subgroup positive AUC: negatives of all other rows "
        "versus the group's positives. It is low if the group's positives score as low as "
        "negatives elsewhere."
    )


class CalibrationBin(ReportModel):
    """Rows with a score in (lower, upper]; the first bin includes its lower end."""

    lower: float = Field(ge=0, le=1, description="Lower edge of the bin.")
    upper: float = Field(ge=0, le=1, description="Upper edge of the bin.")
    rows: int = Field(ge=0, description="Number of rows in the bin.")
    mean_score: float | None = Field(description="Mean score of the rows; null for an empty bin.")
    positives: RateEstimate = Field(description="Share of the rows that are positive.")


class Calibration(ReportModel):
    """Data of a reliability diagram."""

    error: Estimate = Field(description="Expected calibration error, as in the overall metrics.")
    bins: tuple[CalibrationBin, ...] = Field(description="All bins from 0 to 1, in order.")


class GroupReport(ReportModel):
    """Metrics of one group before and after training."""

    group: str = Field(description="Name of the group in the data.")
    n: int = Field(ge=1, description="Number of rows in the group.")
    positives: int = Field(ge=0, description="Rows of the group with the positive label.")
    negatives: int = Field(ge=0, description="Rows of the group with another label.")
    small_sample: bool = Field(
        description="True if a rate of the group rests on fewer rows than min_support: on that "
        "many negatives (FPR) or positives (FNR). A rate without any rows is null instead."
    )
    tuned: GroupMetrics = Field(description="Metrics of the model under report.")
    base: GroupMetrics | None = Field(
        description="Metrics of the base model; null if it was not scored."
    )
    auc: GroupAuc = Field(description="ROC AUC of the model under report around the group.")
    calibration: Calibration = Field(
        description="Calibration of the model under report on the group."
    )


class Stratum(ReportModel):
    """Metrics of one source or of one finer label (detail)."""

    name: str = Field(description="Name of the source or the finer label in the data.")
    n: int = Field(ge=1, description="Number of rows.")
    positives: int = Field(ge=0, description="Rows with the positive label.")
    negatives: int = Field(ge=0, description="Rows with another label.")
    small_sample: bool = Field(
        description="True if a rate rests on fewer rows than min_support, as for groups."
    )
    tuned: GroupMetrics = Field(description="Metrics of the model under report.")
    base: GroupMetrics | None = Field(
        description="Metrics of the base model; null if it was not scored."
    )


class FunctionalCell(ReportModel):
    """Accuracy on the rows of one functionality about one group."""

    group: str = Field(description="Name of the group in the data.")
    n: int = Field(ge=1, description="Rows of the functionality about this group.")
    accuracy: RateEstimate = Field(
        description="Share of the rows that the model under report predicts correctly."
    )


class Functionality(ReportModel):
    """Functional test: accuracy on one finer label, as in HateCheck (Röttger et al. 2021,
    arXiv:2012.15606).
    """

    name: str = Field(description="Name of the finer label (HateCheck's functionality).")
    n: int = Field(ge=1, description="Number of rows.")
    label: str | None = Field(description="Label of all its rows; null if the labels differ.")
    tuned: RateEstimate = Field(
        description="Share of the rows that the model under report predicts correctly."
    )
    base: RateEstimate | None = Field(
        description="Share of the rows that the base model predicts correctly; null if it was not "
        "scored."
    )
    by_group: tuple[FunctionalCell, ...] = Field(
        description="Accuracy of the model under report by group, sorted by name."
    )


class ParityDifference(ReportModel):
    """Difference between groups with its basic bootstrap interval; 0 is parity.

    The value itself is biased upwards: it grows by chance with the number of groups, and more so
    if the groups are small.
    """

    value: float | None = Field(description="Largest minus smallest rate over the groups.")
    lower: float | None = Field(description="Lower end of the bootstrap interval.")
    upper: float | None = Field(description="Upper end of the bootstrap interval.")
    highest: str | None = Field(description="Group with the largest rate.")
    lowest: str | None = Field(description="Group with the smallest rate.")
    reason: str | None = Field(default=None, description="Reason for a null value.")
    interval_reason: str | None = Field(
        default=None, description="Reason for the lack of an interval if the value is not null."
    )


class Parity(ReportModel):
    """Differences between the groups for one model (fairlearn's definitions)."""

    demographic_parity: ParityDifference = Field(
        description="Demographic parity difference: of the share of rows predicted positive."
    )
    false_positive_rate: ParityDifference = Field(
        description="Difference of the false-positive rates."
    )
    true_positive_rate: ParityDifference = Field(
        description="Difference of the true-positive rates (1 - FNR)."
    )
    equalized_odds: ParityDifference = Field(
        description="Equalized odds difference: the larger of the differences of the "
        "false-positive and the true-positive rates; highest and lowest are those of that rate."
    )
    left_out: dict[str, str] = Field(
        description="Groups for which a rate cannot be computed, with the reason; they are "
        "excluded from the difference of that rate."
    )


class ParityReport(ReportModel):
    """Differences between the groups before and after training."""

    tuned: Parity = Field(description="Differences for the model under report.")
    base: Parity | None = Field(
        description="Differences for the base model; null if it was not scored."
    )
    resamples: int = Field(
        ge=1, description="Number of bootstrap resamples of the rows within each group."
    )
