"""Checkpoint selection under caps: point estimates on the validation split alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from service.fairness import metrics
from service.fairness.columns import at_threshold, binary_predictions, equal, partition
from service.fairness.predictions import Predictions
from service.fairness.thresholds import fit_threshold
from service.fairness.verdicts import Cap


@dataclass(frozen=True)
class CheckpointScore:
    """Validation figures of one checkpoint. Rates are fractions."""

    step: int | None
    f1: float | None
    feasible: bool
    """True if the point estimates satisfy every cap and the minimum F1."""
    violation: float
    """Total excess over the caps plus the shortfall of F1; 0 if feasible."""
    threshold: float | None
    """Fitted threshold of the figures; None: argmax."""
    rates: dict[str, dict[str, float | None]]
    """Group to {"fpr": …, "fnr": …}; None where there are no rows to count."""


def score_checkpoint(
    validation: Predictions,
    positive_label: str,
    caps: Iterable[Cap],
    min_f1: float | None,
    *,
    fitted: bool,
) -> CheckpointScore:
    """Compare a checkpoint's validation predictions with the caps and the minimum F1.

    With `fitted` the predictions are those at the threshold that `fit_threshold` finds on the same
    rows, otherwise the argmax predictions. A rate that cannot be computed violates no cap; an F1
    that cannot be computed counts as 0.
    """
    caps = list(caps)
    model = binary_predictions(validation, positive_label)
    truth = equal(validation.labels, positive_label)
    threshold = None
    if fitted:
        threshold, _ = fit_threshold(validation, positive_label, caps, min_f1)
        model = at_threshold(model, threshold)
    rates: dict[str, dict[str, float | None]] = {}
    for group, rows in partition(validation.groups, {cap.group for cap in caps}).rows.items():
        wrong, positive = (truth != model.called)[rows], truth[rows]
        rates[group] = {
            "fpr": float(wrong[~positive].mean()) if not positive.all() else None,
            "fnr": float(wrong[positive].mean()) if positive.any() else None,
        }
    f1 = metrics.f1(truth, model.called).value
    total = violation(f1, rates, caps, min_f1)
    return CheckpointScore(
        step=validation.checkpoint_step,
        f1=f1,
        feasible=total == 0,
        violation=total,
        threshold=threshold,
        rates=rates,
    )


def violation(
    f1: float | None,
    rates: Mapping[str, Mapping[str, float | None]],
    caps: Iterable[Cap],
    min_f1: float | None,
) -> float:
    """Return the sum of max(0, rate - cap) over the caps plus max(0, min_f1 - F1)."""
    total = 0.0
    for cap in caps:
        observed = rates.get(cap.group, {}).get(cap.metric)
        if observed is not None:
            total += max(0.0, observed - cap.max)
    return total if min_f1 is None else total + max(0.0, min_f1 - (f1 or 0.0))


def is_better(candidate: CheckpointScore, best: CheckpointScore | None) -> bool:
    """Return True if a later checkpoint should replace the best so far (None: there is none yet).

    A feasible checkpoint beats an infeasible one. Of two feasible checkpoints the higher F1 wins,
    of two infeasible ones the smaller violation and then the higher F1. A tie keeps the earlier.
    """
    return best is None or _rank(candidate) > _rank(best)


def _rank(score: CheckpointScore) -> tuple[float, float]:
    return -score.violation, -1.0 if score.f1 is None else score.f1
