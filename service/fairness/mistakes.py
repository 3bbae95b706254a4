"""Most confident errors of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.fairness.columns import BinaryPredictions
from service.fairness.predictions import Predictions
from service.fairness.schema_curves import Mistake
from service.fairness.thresholds import fallback_label

if TYPE_CHECKING:
    from service.fairness.columns import Bools

MAX_MISTAKES = 30


def worst_mistakes(
    predictions: Predictions, positive_label: str, truth: Bools, model: BinaryPredictions
) -> tuple[Mistake, ...]:
    """Return at most `MAX_MISTAKES` wrong rows, the most confident first.

    The confidence is the probability of the predicted side: the score if the row is predicted
    positive, otherwise 1 - score. Ties are broken by id.
    """
    import numpy as np

    wrong = np.flatnonzero(model.called != truth)
    certainty = np.where(model.called, model.scores, 1 - model.scores)[wrong]
    if len(wrong) > MAX_MISTAKES:  # sort only the rows that can be among the first
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
