"""The wrong rows that a model was surest of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.fairness.columns import BinaryPredictions
from service.fairness.predictions import Predictions
from service.fairness.schema_detail import Mistake
from service.fairness.thresholds import fallback_label

if TYPE_CHECKING:
    from service.fairness.columns import Bools

MAX_MISTAKES = 30


def worst_mistakes(
    predictions: Predictions, positive_label: str, truth: Bools, model: BinaryPredictions
) -> tuple[Mistake, ...]:
    """At most `MOST` wrong rows by the probability of the side that they were wrongly put on:
    the score where called positive, 1 - score elsewhere. Of equally sure ones the first by id.
    """
    import numpy as np

    wrong = np.flatnonzero(model.called != truth)
    certainty = np.where(model.called, model.scores, 1 - model.scores)[wrong]
    if len(wrong) > MAX_MISTAKES:  # only those that can be among the first are put in order
        wrong = wrong[certainty >= np.partition(certainty, -MAX_MISTAKES)[-MAX_MISTAKES]]
    fallback = fallback_label(predictions, positive_label)
    ranked = sorted(
        wrong.tolist(),
        key=lambda row: (
            -(model.scores[row] if model.called[row] else 1 - model.scores[row]),
            predictions.ids[row],
        ),
    )
    return tuple(
        Mistake(
            id=predictions.ids[row],
            group=predictions.groups[row],
            source=predictions.sources[row],
            detail=predictions.details[row],
            label=predictions.labels[row],
            prediction=positive_label if model.called[row] else fallback(row),
            score=predictions.scores[row],
        )
        for row in ranked[:MAX_MISTAKES]
    )
