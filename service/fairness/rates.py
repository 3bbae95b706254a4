"""Confusion counts, and rates with their binomial confidence limits (scipy)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from service.fairness.schema import Confusion, RateEstimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bools: TypeAlias = NDArray[np.bool_]


def check_confidence(confidence: float) -> None:
    """Raise ValueError unless 0.5 <= confidence < 1.

    Below 0.5 a one-sided upper limit can be below the lower one, so verdicts could contradict.
    """
    if not 0.5 <= confidence < 1:
        raise ValueError(f"confidence must be at least 0.5 and below 1, not {confidence}")


def wilson_interval(count: int, total: int, confidence: float) -> tuple[float, float]:
    """Return the two-sided Wilson score interval (1927) of a proportion, uncorrected.

    With p = count / total, n = total and z the normal quantile of (1 + confidence) / 2, it is
    (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n). `total` must be positive. The formula is
    written out because scipy's `binomtest` also runs its test, which takes a millisecond each time:
    too long for a report with thousands of rates.
    """
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))
    centre = (count + z * z / 2) / (total + z * z)
    half = z / (total + z * z) * math.sqrt(count * (total - count) / total + z * z / 4)
    # There the formula gives exactly 0 or 1, up to rounding.
    return centre - half if count else 0.0, centre + half if count < total else 1.0


def clopper_pearson_limits(count: int, total: int, confidence: float) -> tuple[float, float]:
    """Return the one-sided exact lower and upper limit (Clopper and Pearson 1934).

    Each limit separately has the confidence; together they are the two-sided exact interval at
    2 x confidence - 1. `total` must be positive.
    """
    from scipy.stats import binomtest

    lower = binomtest(count, total, alternative="greater").proportion_ci(confidence, "exact").low
    upper = binomtest(count, total, alternative="less").proportion_ci(confidence, "exact").high
    return float(lower), float(upper)


def rate(count: int, total: int, confidence: float, *, empty: str) -> RateEstimate:
    """Return count / total with its Wilson interval; null, with reason `empty`, if total is 0."""
    if total == 0:
        return unknown_rate(empty)
    lower, upper = wilson_interval(count, total, confidence)
    return RateEstimate(
        value=count / total, numerator=count, denominator=total, lower=lower, upper=upper
    )


def unknown_rate(reason: str) -> RateEstimate:
    """Return a null rate with its reason."""
    return RateEstimate(
        value=None, numerator=0, denominator=0, lower=None, upper=None, reason=reason
    )


def confusion(truth: Bools, called: Bools) -> Confusion:
    """Count rows by true class and predicted class.

    scikit-learn's `confusion_matrix` is not used, because its input checks take some milliseconds
    and a report with many groups needs a thousand of these.
    """
    tp, positives, calls = int((truth & called).sum()), int(truth.sum()), int(called.sum())
    return Confusion(
        true_positive=tp,
        true_negative=len(truth) - positives - calls + tp,
        false_positive=calls - tp,
        false_negative=positives - tp,
    )


def accuracy(counts: Confusion, confidence: float) -> RateEstimate:
    """Return (TP + TN) / all rows."""
    right = counts.true_positive + counts.true_negative
    total = right + counts.false_positive + counts.false_negative
    return rate(right, total, confidence, empty="no rows")


def precision(counts: Confusion, confidence: float) -> RateEstimate:
    """Return TP / (TP + FP); the interval is conditional on the number of predicted positives."""
    called = counts.true_positive + counts.false_positive
    return rate(counts.true_positive, called, confidence, empty="no row was predicted positive")


def recall(counts: Confusion, confidence: float) -> RateEstimate:
    """Return TP / (TP + FN), the true-positive rate."""
    positives = counts.true_positive + counts.false_negative
    return rate(counts.true_positive, positives, confidence, empty="no positive rows")


def fpr(counts: Confusion, confidence: float) -> RateEstimate:
    """Return FP / (FP + TN), the false-positive rate."""
    negatives = counts.false_positive + counts.true_negative
    return rate(counts.false_positive, negatives, confidence, empty="no negative rows")


def fnr(counts: Confusion, confidence: float) -> RateEstimate:
    """Return FN / (FN + TP), the false-negative rate."""
    positives = counts.true_positive + counts.false_negative
    return rate(counts.false_negative, positives, confidence, empty="no positive rows")
