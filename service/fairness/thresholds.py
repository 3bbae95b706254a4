"""Fit one global threshold on the positive label's score to validation rows, under the caps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from service.fairness.columns import equal
from service.fairness.predictions import Predictions
from service.fairness.schema_verdicts import ThresholdFit
from service.fairness.verdicts import Cap

if TYPE_CHECKING:
    from service.fairness.columns import Floats, Ints


def fit_threshold(
    validation: Predictions,
    positive_label: str,
    caps: Iterable[Cap] = (),
    min_f1: float | None = None,
) -> tuple[float, ThresholdFit]:
    """Return the threshold with the highest F1 that satisfies every cap and `min_f1`.

    If no threshold satisfies all of them, return the one with the smallest total violation, among
    several the one with the highest F1. Remaining ties go to the threshold closest to 0.5, then to
    the higher one, which predicts fewer positives.

    Point estimates decide: a cap is satisfied if the rate is at most `max`. A rate that cannot be
    computed (no such rows) violates no cap; without positive rows there is no F1, which counts as 0
    against `min_f1`. Takes O(n log n), and the same again per cap.
    """
    import numpy as np

    truth = equal(validation.labels, positive_label)
    scores = np.array(validation.scores, dtype=np.float64)
    thresholds = candidates(scores)
    tp, fp = called_at(scores[truth], thresholds), called_at(scores[~truth], thresholds)
    positives = int(truth.sum())
    # As in metrics.f1, F1 does not exist without positive rows.
    f1 = 2 * tp / (tp + fp + positives) if positives else np.full(len(thresholds), np.nan)
    violation = np.zeros(len(thresholds))
    for cap in caps:
        wrong = equal(validation.groups, cap.group) & (truth == (cap.metric == "fnr"))
        if rows := int(wrong.sum()):
            called = called_at(scores[wrong], thresholds)
            errors = called if cap.metric == "fpr" else rows - called
            violation += np.maximum(errors / rows - cap.max, 0)
    ranked = np.nan_to_num(f1, nan=-1.0)
    if min_f1 is not None:
        violation += np.maximum(min_f1 - np.maximum(ranked, 0), 0)
    # The last key counts first.
    best = np.lexsort((-thresholds, np.abs(thresholds - 0.5), -ranked, violation))[0]
    return float(thresholds[best]), ThresholdFit(
        split=validation.split or "validation",
        rows=len(validation),
        f1=None if math.isnan(f1[best]) else float(f1[best]),
        feasible=bool(violation[best] == 0),
        violation=float(violation[best]),
    )


def candidates(scores: Floats) -> Floats:
    """Return one threshold for every possible set of predicted positives, in ascending order.

    Thresholds are the midpoints between adjacent scores, between 0 and the lowest score (all rows
    positive), and between the highest score and 1 (no row positive).
    """
    import numpy as np

    ends = np.concatenate([[0.0], np.unique(scores), [1.0]])
    low, high = ends[:-1], ends[1:]
    middle: Floats = low + (high - low) / 2
    # Adjacent floats have no midpoint: use the upper one, and above 1 the next float.
    middle[1:] = np.where(middle[1:] > low[1:], middle[1:], high[1:])
    if middle[-1] <= low[-1]:
        middle[-1] = np.nextafter(low[-1], 2)
    return middle


def called_at(scores: Floats, thresholds: Floats) -> Ints:
    """Count the scores that are at or above each threshold."""
    import numpy as np

    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")


def decide(predictions: Predictions, positive_label: str, threshold: float) -> Predictions:
    """Return the predictions at a threshold: positive where the score is at least `threshold`.

    Any other row gets its `fallback_label`.
    """
    fallback = fallback_label(predictions, positive_label)
    return dataclasses.replace(
        predictions,
        predictions=[
            positive_label if score >= threshold else fallback(row)
            for row, score in enumerate(predictions.scores)
        ],
    )


def fallback_label(predictions: Predictions, positive_label: str) -> Callable[[int], str]:
    """Return a function from row number to the label of a row that is not predicted positive.

    This is the most probable other label; ties are broken by name. Without label scores it is the
    predicted label if that is not the positive one, otherwise the only other label in the data, or
    "not <positive label>" if there are several.
    """
    columns = sorted((predictions.label_scores or {}).items())
    columns = [(label, scores) for label, scores in columns if label != positive_label]
    if columns:
        return lambda row: max(columns, key=lambda column: column[1][row])[0]
    labels = {*predictions.labels, *predictions.predictions} - {positive_label}
    single_label = labels.pop() if len(labels) == 1 else f"not {positive_label}"

    def fallback(row: int) -> str:
        predicted = predictions.predictions[row]
        return single_label if predicted == positive_label else predicted

    return fallback
