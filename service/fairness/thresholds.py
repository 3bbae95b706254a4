"""One global threshold on the positive label's score, fitted on validation under the caps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from service.fairness.columns import equal
from service.fairness.predictions import Predictions
from service.fairness.schema_detail import ThresholdFit
from service.fairness.verdicts import Cap

if TYPE_CHECKING:
    from service.fairness.columns import Floats, Ints


def fit_threshold(
    validation: Predictions,
    positive_label: str,
    caps: Iterable[Cap] = (),
    min_f1: float | None = None,
) -> tuple[float, ThresholdFit]:
    """The threshold of the best F1 on `validation` among those that hold every cap and `min_f1`.

    Point estimates alone decide: a cap holds where the rate is at most its max. A rate that cannot
    be computed (no such rows) breaks no cap; an F1 that cannot be computed counts as lower than any
    and falls short of `min_f1` by all of it. Where no threshold holds everything, that of the least
    violation is taken, of several the one with the best F1. What is still undecided goes to the
    threshold nearest to 0.5, of two equally near to the higher, which calls fewer rows positive.
    Takes O(n log n) and as much again per cap.
    """
    import numpy as np

    truth = equal(validation.labels, positive_label)
    scores = np.array(validation.scores, dtype=np.float64)
    thresholds = candidates(scores)
    tp, fp = called_at(scores[truth], thresholds), called_at(scores[~truth], thresholds)
    counted = tp + fp + truth.sum()
    f1 = np.divide(2 * tp, counted, out=np.full(len(thresholds), np.nan), where=counted > 0)
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
    """A threshold for every set of rows that one can call positive, rising.

    They lie halfway between neighbouring scores, between 0 and the lowest (all rows positive) and
    between the highest and 1 (none).
    """
    import numpy as np

    ends = np.concatenate([[0.0], np.unique(scores), [1.0]])
    low, high = ends[:-1], ends[1:]
    middle: Floats = low + (high - low) / 2
    # Between neighbouring floats there is nothing: the upper one then, and past 1 the next above.
    middle[1:] = np.where(middle[1:] > low[1:], middle[1:], high[1:])
    if middle[-1] <= low[-1]:
        middle[-1] = np.nextafter(low[-1], 2)
    return middle


def called_at(scores: Floats, thresholds: Floats) -> Ints:
    """How many of the scores are at or above each threshold."""
    import numpy as np

    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")


def decide(predictions: Predictions, positive_label: str, threshold: float) -> Predictions:
    """The same rows and scores, called positive where the score is at least `threshold`; any other
    row gets the label that `otherwise` names.
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
    """What a row is called, by its number, where it is not called positive.

    Its most probable other label, of equally probable ones the first in sorted order. Without the
    labels' scores, its own prediction if that is not the positive label, else the only other label
    in the data; where there is no single one, "not " and the positive label.
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
