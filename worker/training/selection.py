"""Choice of the best weights by fairness.select best_f1_within_caps.

Weights are compared by point estimates on the validation split alone (service.fairness.selection);
the test split is scored once, with the chosen weights.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from service.domain.spec import FairnessSection
from service.fairness import Predictions
from service.fairness.columns import partition
from service.fairness.selection import CheckpointScore, score_checkpoint
from service.fairness.thresholds import decide

Score = Callable[[Any, int, Callable[[], None]], Predictions]
"""Scores validation: the model, its step, a callback between passes (Scorer.validation_scorer)."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The criterion by which the weights at evaluation points are compared."""

    fairness: FairnessSection
    fitted: bool
    """True if the metrics are those at a threshold fitted on the same rows, else at argmax."""
    score: Score

    def measure(
        self, model: Any, step: int, between_passes: Callable[[], None]
    ) -> tuple[CheckpointScore, dict[str, float]]:
        """Score the current weights of `model`; return their standing and its metrics.

        Every rank must call it; all get the same result.
        """
        fairness = self.fairness
        predictions = self.score(model, step, between_passes)
        validation = score_checkpoint(
            predictions,
            fairness.positive_label,
            fairness.caps,
            fairness.min_f1,
            fitted=self.fitted,
        )
        if validation.threshold is not None:
            predictions = decide(predictions, fairness.positive_label, validation.threshold)
        return validation, dict(_metrics(validation, predictions, fairness))


def _metrics(
    validation: CheckpointScore, predictions: Predictions, fairness: FairnessSection
) -> Iterator[tuple[str, float]]:
    """Yield metrics by name, without undefined ones and groups beyond the report's limit."""
    positive_label = fairness.positive_label
    if validation.f1 is not None:
        yield "eval_f1", validation.f1
    correct = sum(
        (label == positive_label) == (predicted == positive_label)
        for label, predicted in zip(predictions.labels, predictions.predictions, strict=True)
    )
    yield "eval_accuracy", correct / len(predictions)
    if validation.threshold is not None:
        yield "eval_threshold", validation.threshold
    yield "eval_feasible", float(validation.feasible)
    yield "eval_violation", validation.violation
    reported_groups = partition(predictions.groups, {cap.group for cap in fairness.caps}).rows
    for group, rates in sorted(validation.rates.items()):
        if group not in reported_groups:
            continue
        for metric in ("fpr", "fnr"):
            value = rates.get(metric)
            if value is not None:
                yield f"eval_{metric}/{group}", value


def infeasible_detail(best: CheckpointScore, fairness: FairnessSection) -> str:
    """Return the warning for chosen weights that violate a cap or min_f1 on validation."""
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
        "At no evaluation did the model satisfy every cap and min_f1 on the validation split. The "
        f"weights with the smallest total violation ({best.violation:.3f}) are used, of step "
        f"{best.step}: "
        f"{'; '.join(broken)}."
    )
