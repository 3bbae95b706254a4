"""fairness.select best_f1_within_caps: where the weights at an evaluation point stand.

Point estimates on the validation split alone decide (service.fairness.selection); the test split
is scored once, with the weights chosen.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from service.domain.spec import FairnessSection
from service.fairness import Predictions
from service.fairness.columns import parts
from service.fairness.selection import Standing, standing
from service.fairness.thresholds import decide

Score = Callable[[Any, int, Callable[[], None]], Predictions]
"""Scores validation: the model, its step, a callback between passes (Scorer.validation_scorer)."""


@dataclass(frozen=True, slots=True)
class Selection:
    fairness: FairnessSection
    fitted: bool
    """Whether the figures are those at a threshold fitted on the same rows, else by argmax."""
    score: Score

    def measure(
        self, model: Any, step: int, between: Callable[[], None]
    ) -> tuple[Standing, dict[str, float]]:
        """Where the weights that `model` holds stand, and that as metrics.

        Every process of a run must call it; all get the same.
        """
        fairness = self.fairness
        predictions = self.score(model, step, between)
        found = standing(
            predictions,
            fairness.positive_label,
            fairness.caps,
            fairness.min_f1,
            fitted=self.fitted,
        )
        if found.threshold is not None:
            predictions = decide(predictions, fairness.positive_label, found.threshold)
        return found, dict(_figures(found, predictions, fairness))


def _figures(
    found: Standing, predictions: Predictions, fairness: FairnessSection
) -> Iterator[tuple[str, float]]:
    """Metrics by name; what cannot be computed is left out, and groups past a report's limit."""
    positive_label = fairness.positive_label
    if found.f1 is not None:
        yield "eval_f1", found.f1
    right = sum(
        (label == positive_label) == (called == positive_label)
        for label, called in zip(predictions.labels, predictions.predictions, strict=True)
    )
    yield "eval_accuracy", right / len(predictions)
    if found.threshold is not None:
        yield "eval_threshold", found.threshold
    yield "eval_feasible", float(found.feasible)
    yield "eval_violation", found.violation
    shown = parts(predictions.groups, {cap.group for cap in fairness.caps}).rows
    for group, rates in sorted(found.rates.items()):
        if group not in shown:
            continue
        for metric in ("fpr", "fnr"):
            value = rates.get(metric)
            if value is not None:
                yield f"eval_{metric}/{group}", value


def nothing_within_caps(best: Standing, fairness: FairnessSection) -> str:
    """What is to be said of a choice that breaks a cap or falls short of min_f1 on validation."""
    broken = []
    if fairness.min_f1 is not None and (best.f1 is None or best.f1 < fairness.min_f1):
        f1 = "cannot be computed" if best.f1 is None else f"is {best.f1:.3f}"
        broken.append(f"F1 {f1} (min_f1 {fairness.min_f1:g})")
    for cap in fairness.caps:
        observed = best.rates.get(cap.group, {}).get(cap.metric)
        if observed is not None and observed > cap.max:
            broken.append(
                f"{cap.metric.upper()} of {cap.group} is {observed:.3f} (cap {cap.max:g})"
            )
    return (
        "At no evaluation did the model hold every cap and min_f1 on the validation split. The one "
        f"of the least violation ({best.violation:.3f} in all) is taken, at step {best.step}: "
        f"{'; '.join(broken)}."
    )
