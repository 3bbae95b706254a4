"""Overall figures of a model with their bootstrap intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from service.fairness import metrics
from service.fairness.bootstrap import Interval, f1_interval, score_intervals
from service.fairness.columns import BinaryPredictions
from service.fairness.schema import Estimate, OverallMetrics
from service.fairness.schema_base import DRAWS_AGREE

if TYPE_CHECKING:
    from service.fairness.columns import Bools, Floats


class ScoreFigures(NamedTuple):
    """Figures that depend on the scores alone, and so are the same at every threshold."""

    auc: Estimate
    calibration_error: Estimate


def score_figures(truth: Bools, scores: Floats, confidence: float, seed: int) -> ScoreFigures:
    """Return the ROC AUC and the calibration error with their intervals."""
    auc, error = metrics.auc(truth, scores), metrics.calibration_error(truth, scores)
    assert error.value is not None
    interval = score_intervals(truth, scores, auc.value, error.value, confidence, seed)
    return ScoreFigures(_with_interval(auc, interval[0]), _with_interval(error, interval[1]))


def overall_figures(
    truth: Bools, model: BinaryPredictions, scored: ScoreFigures, confidence: float, seed: int
) -> OverallMetrics:
    """Return all overall figures: F1 with its interval, and the figures of `scored`."""
    plain = metrics.overall_metrics(truth, model.called, None, confidence)
    assert plain.confusion is not None
    f1 = _with_interval(plain.f1, f1_interval(plain.confusion, confidence, seed))
    return plain.model_copy(update={"f1": f1, **scored._asdict()})


def _with_interval(figure: Estimate, interval: Interval) -> Estimate:
    """Return the figure with its interval or the reason for the lack of one; null as it is."""
    if figure.value is None:
        return figure
    reason = DRAWS_AGREE if interval.lower is None else None
    return figure.model_copy(update=interval._asdict() | {"interval_reason": reason})
