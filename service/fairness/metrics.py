"""Overall metrics of a split, positive label versus all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from service.fairness import rates
from service.fairness.schema import Differences, Estimate, OverallMetrics
from service.fairness.schema_base import NO_INTERVAL_COMPUTED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bools: TypeAlias = NDArray[np.bool_]
    Floats: TypeAlias = NDArray[np.float64]
    Ints: TypeAlias = NDArray[np.int64]

CALIBRATION_BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""


def overall_metrics(
    truth: Bools, called: Bools, scores: Floats | None, confidence: float
) -> OverallMetrics:
    """Return every overall figure; `scores` are probabilities of the positive label, or None.

    The three arrays are parallel, one entry per row, and not empty.
    """
    counts = rates.confusion(truth, called)
    no_scores = Estimate(value=None, reason="there are no scores")
    return OverallMetrics(
        confusion=counts,
        accuracy=rates.accuracy(counts, confidence),
        precision=rates.precision(counts, confidence),
        recall=rates.recall(counts, confidence),
        fpr=rates.fpr(counts, confidence),
        fnr=rates.fnr(counts, confidence),
        f1=f1(truth, called),
        auc=no_scores if scores is None else auc(truth, scores),
        calibration_error=no_scores if scores is None else calibration_error(truth, scores),
    )


def unknown_metrics(reason: str) -> OverallMetrics:
    """Return null figures, with the reason, for a model without predictions."""
    rate, figure = rates.unknown_rate(reason), Estimate(value=None, reason=reason)
    return OverallMetrics(
        confusion=None,
        accuracy=rate,
        precision=rate,
        recall=rate,
        fpr=rate,
        fnr=rate,
        f1=figure,
        auc=figure,
        calibration_error=figure,
    )


def f1(truth: Bools, called: Bools) -> Estimate:
    """Return F1 = 2TP / (2TP + FP + FN); null if no row is positive, whatever was predicted.

    Without positive rows recall does not exist, and the formula gives 0 or nothing depending on
    whether a row was predicted positive. With positive rows, none of them found is a measured 0.
    """
    from sklearn.metrics import f1_score

    if not truth.any():
        return Estimate(value=None, reason="no positive rows")
    return _plain(float(f1_score(truth, called, zero_division=0.0)))


def auc(truth: Bools, scores: Floats) -> Estimate:
    """Return the probability that a positive row outscores a negative one; a tie counts 1/2."""
    from sklearn.metrics import roc_auc_score

    if truth.all() or not truth.any():
        return Estimate(value=None, reason="all rows are of one class")
    return _plain(float(roc_auc_score(truth, scores)))


def calibration_error(truth: Bools, scores: Floats) -> Estimate:
    """Return the expected calibration error of the positive label's probability, a fraction.

    Guo et al. 2017 ("On Calibration of Modern Neural Networks"), equation 3: the mean over rows of
    |share of positives - mean score| in the row's bin. There are `CALIBRATION_BINS` bins of equal
    width over [0, 1], closed on the right, the first on both sides; empty bins do not count. The
    error uses the positive label's probability instead of the predicted label's, so that it does
    not depend on the decision threshold.
    """
    import numpy as np
    from sklearn.calibration import calibration_curve

    share, mean_score = calibration_curve(
        truth, scores, pos_label=True, n_bins=CALIBRATION_BINS, strategy="uniform"
    )
    rows = np.bincount(calibration_bin(scores), minlength=CALIBRATION_BINS)
    return _plain(float(np.average(np.abs(share - mean_score), weights=rows[rows > 0])))


def calibration_bin(scores: Floats) -> Ints:
    """Return the index, from 0, of each score's bin in `calibration_error`."""
    import numpy as np

    return np.searchsorted(np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], scores)


def _plain(value: float) -> Estimate:
    """Return a figure without an interval; `intervals` adds one to those of a whole split."""
    return Estimate(value=value, interval_reason=NO_INTERVAL_COMPUTED)


def differences(tuned: OverallMetrics, base: OverallMetrics) -> Differences:
    """Return tuned minus base for each figure; null, with the reason, if either is null."""

    def minus(name: str) -> Estimate:
        after, before = getattr(tuned, name), getattr(base, name)
        if after.value is None:
            return Estimate(value=None, reason=f"tuned: {after.reason}")
        if before.value is None:
            return Estimate(value=None, reason=f"base: {before.reason}")
        return _plain(after.value - before.value)

    return Differences(**{name: minus(name) for name in Differences.model_fields})
