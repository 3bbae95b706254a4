"""Which checkpoint to keep: point estimates on the validation split alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from service.fairness import metrics
from service.fairness.columns import answers, at_threshold, equal, parts
from service.fairness.predictions import Predictions
from service.fairness.thresholds import fit_threshold
from service.fairness.verdicts import Cap


@dataclass(frozen=True)
class Standing:
    """How one checkpoint does on validation. Rates are fractions."""

    step: int | None
    f1: float | None
    feasible: bool
    """Whether every cap and the least F1 hold, by point estimates."""
    violation: float
    """Sum of what the caps are passed by and F1 falls short by; 0: feasible."""
    threshold: float | None
    """The fitted one that the figures are at; None: argmax."""
    rates: dict[str, dict[str, float | None]]
    """Group to {"fpr": …, "fnr": …}; None over no rows."""


def standing(
    validation: Predictions,
    positive_label: str,
    caps: Iterable[Cap],
    min_f1: float | None,
    *,
    fitted: bool,
) -> Standing:
    """Hold a checkpoint's predictions on validation against the caps and the least F1.

    With `fitted` they are taken at the threshold that `fit_threshold` finds on the same rows, else
    as they are. A rate that cannot be computed breaks no cap; an F1 that cannot be computed falls
    short of `min_f1` by all of it.
    """
    caps = list(caps)
    model, truth = answers(validation, positive_label), equal(validation.labels, positive_label)
    threshold = None
    if fitted:
        threshold, _ = fit_threshold(validation, positive_label, caps, min_f1)
        model = at_threshold(model, threshold)
    rates: dict[str, dict[str, float | None]] = {}
    for group, rows in parts(validation.groups, {cap.group for cap in caps}).rows.items():
        wrong, positive = (truth != model.called)[rows], truth[rows]
        rates[group] = {
            "fpr": float(wrong[~positive].mean()) if not positive.all() else None,
            "fnr": float(wrong[positive].mean()) if positive.any() else None,
        }
    f1 = metrics.f1(truth, model.called).value
    passed_by = violation(f1, rates, caps, min_f1)
    return Standing(
        step=validation.checkpoint_step,
        f1=f1,
        feasible=passed_by == 0,
        violation=passed_by,
        threshold=threshold,
        rates=rates,
    )


def violation(
    f1: float | None,
    rates: Mapping[str, Mapping[str, float | None]],
    caps: Iterable[Cap],
    min_f1: float | None,
) -> float:
    """What the caps are passed by, one after the other, and F1 falls short by; 0: all hold."""
    total = 0.0
    for cap in caps:
        observed = rates.get(cap.group, {}).get(cap.metric)
        if observed is not None:
            total += max(0.0, observed - cap.max)
    return total if min_f1 is None else total + max(0.0, min_f1 - (f1 or 0.0))


def better(candidate: Standing, best: Standing | None) -> bool:
    """Whether a later checkpoint is to be kept in place of the best so far, None of which there is.

    A feasible one beats an infeasible one; of two feasible ones the higher F1 wins, of two
    infeasible ones the smaller violation and then the higher F1. A tie keeps the earlier.
    """
    return best is None or _rank(candidate) > _rank(best)


def _rank(standing: Standing) -> tuple[float, float]:
    return -standing.violation, -1.0 if standing.f1 is None else standing.f1
