"""Counts, and shares of counts with their binomial limits (through scipy)."""

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

    Below one half a one-sided upper limit can lie under the lower one, and verdicts contradict.
    """
    if not 0.5 <= confidence < 1:
        raise ValueError(f"confidence must be at least 0.5 and below 1, not {confidence}")


def wilson_interval(count: int, total: int, confidence: float) -> tuple[float, float]:
    """Two-sided score interval of a proportion (Wilson 1927), without continuity correction.

    `total` must be positive. The formula itself, since scipy's `binomtest` also makes its test each
    time, a millisecond that reports with thousands of rates would wait for.
    """
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))
    centre = (count + z * z / 2) / (total + z * z)
    half = z / (total + z * z) * math.sqrt(count * (total - count) / total + z * z / 4)
    # At the ends the formula is 0 or 1 but for rounding.
    return centre - half if count else 0.0, centre + half if count < total else 1.0


def clopper_pearson_limits(count: int, total: int, confidence: float) -> tuple[float, float]:
    """The one-sided exact lower and upper limits of a proportion (Clopper and Pearson 1934).

    Each holds at the confidence by itself: together they are the two-sided exact interval at
    2 x confidence - 1. `total` must be positive.
    """
    from scipy.stats import binomtest

    lower = binomtest(count, total, alternative="greater").proportion_ci(confidence, "exact").low
    upper = binomtest(count, total, alternative="less").proportion_ci(confidence, "exact").high
    return float(lower), float(upper)


def rate(count: int, total: int, confidence: float, *, empty: str) -> RateEstimate:
    """The share count / total with its interval; null with the reason `empty` when total is 0."""
    if total == 0:
        return unknown_rate(empty)
    lower, upper = wilson_interval(count, total, confidence)
    return RateEstimate(
        value=count / total, numerator=count, denominator=total, lower=lower, upper=upper
    )


def unknown_rate(reason: str) -> RateEstimate:
    """A rate that nothing was counted for."""
    return RateEstimate(
        value=None, numerator=0, denominator=0, lower=None, upper=None, reason=reason
    )


def confusion(truth: Bools, called: Bools) -> Confusion:
    """Count rows by whether they are positive and whether they were called so.

    Not by scikit-learn's `confusion_matrix`, whose checks of its input take some milliseconds: a
    report with many groups makes a thousand of these.
    """
    tp, positives, calls = int((truth & called).sum()), int(truth.sum()), int(called.sum())
    return Confusion(
        true_positive=tp,
        true_negative=len(truth) - positives - calls + tp,
        false_positive=calls - tp,
        false_negative=positives - tp,
    )


def accuracy(counts: Confusion, confidence: float) -> RateEstimate:
    """(TP + TN) / all rows."""
    right = counts.true_positive + counts.true_negative
    total = right + counts.false_positive + counts.false_negative
    return rate(right, total, confidence, empty="no rows")


def precision(counts: Confusion, confidence: float) -> RateEstimate:
    """TP / (TP + FP), the interval conditional on the number of rows called positive."""
    called = counts.true_positive + counts.false_positive
    return rate(counts.true_positive, called, confidence, empty="no row was called positive")


def recall(counts: Confusion, confidence: float) -> RateEstimate:
    """TP / (TP + FN), the true-positive rate."""
    positives = counts.true_positive + counts.false_negative
    return rate(counts.true_positive, positives, confidence, empty="no positive rows")


def fpr(counts: Confusion, confidence: float) -> RateEstimate:
    """FP / (FP + TN), the false-positive rate."""
    negatives = counts.false_positive + counts.true_negative
    return rate(counts.false_positive, negatives, confidence, empty="no negative rows")


def fnr(counts: Confusion, confidence: float) -> RateEstimate:
    """FN / (FN + TP), the false-negative rate."""
    positives = counts.true_positive + counts.false_negative
    return rate(counts.false_negative, positives, confidence, empty="no positive rows")
