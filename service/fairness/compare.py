"""Compare several models on the same rows: a pure function, like the bias report."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from service.fairness import criteria, metrics, rates, verdicts
from service.fairness.columns import (
    BinaryPredictions,
    Partition,
    binary_predictions,
    equal,
    partition,
)
from service.fairness.compare_warnings import comparison_warnings
from service.fairness.paired import holm, paired
from service.fairness.predictions import Predictions
from service.fairness.schema import CapVerdict, ReportWarning
from service.fairness.schema_base import Rule
from service.fairness.schema_compare import (
    Compared,
    ComparedCap,
    Comparison,
    ComparisonData,
    Pair,
    WorstExcess,
)
from service.fairness.schema_verdicts import GroupRates

if TYPE_CHECKING:
    from service.fairness.columns import Bools

__all__ = ["Entry", "compare", "pareto_front"]

Point: TypeAlias = tuple[float | None, float | None]
"""F1 (higher is better) and the worst excess over a cap (lower is better)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One model; `predictions` are those under its decision rule `rule`."""

    entry: str
    predictions: Predictions
    name: str
    base_model: str
    template: str
    run_id: str | None = None
    step: int | None = None
    evaluation_id: str | None = None
    rule: Rule = "argmax"
    threshold: float | None = None


def compare(
    entries: Sequence[Entry],
    *,
    positive_label: str,
    split: str,
    caps: Iterable[verdicts.Cap] = (),
    min_f1: float | None = None,
    confidence: float = 0.95,
    min_support: int = 30,
    dataset_hash: str | None = None,
    settings_of: str | None = None,
    dataset_groups: Collection[str] = (),
    warnings: Iterable[ReportWarning] = (),
) -> Comparison:
    """Evaluate every model against the same caps, and test every pair of models for a difference.

    `dataset_groups` are those in any split of the dataset: the verdict on a capped group that this
    split lacks is inconclusive if the group is one of them, otherwise not applicable. `warnings`
    precede the warnings of the comparison itself.

    Raises ValueError if there are fewer than two entries, if two have the same name, if the
    confidence is not in [0.5, 1), or if the entries do not cover the same rows in the same order;
    the message names the entry that differs from the first one and the first difference.
    """
    rates.check_confidence(confidence)
    _check(entries)
    rows, caps = entries[0].predictions, tuple(caps)
    truth = equal(rows.labels, positive_label)
    models = [binary_predictions(entry.predictions, positive_label) for entry in entries]
    groups = partition(rows.groups, {cap.group for cap in caps})
    compared = [
        _measure(entry, model, truth, groups, caps, confidence, dataset_groups)
        for entry, model in zip(entries, models, strict=True)
    ]
    # Without an applicable cap the second coordinate is the same for all: F1 alone counts.
    uncapped = not any(cap.observed is not None for model in compared for cap in model.caps)
    front = pareto_front(
        [(model.f1.value, 0.0 if uncapped else model.worst_excess.value) for model in compared]
    )
    fitted = [entry.entry for entry in entries if entry.rule == "fitted"]
    return Comparison(
        data=ComparisonData(
            dataset_hash=dataset_hash,
            split=split,
            rows=len(rows),
            positives=int(truth.sum()),
            negatives=int((~truth).sum()),
        ),
        positive_label=positive_label,
        confidence=confidence,
        caps=tuple(ComparedCap(group=cap.group, metric=cap.metric, max=cap.max) for cap in caps),
        min_f1=min_f1,
        settings_of=settings_of,
        entries=tuple(
            model.model_copy(update={"pareto": on_front})
            for model, on_front in zip(compared, front, strict=True)
        ),
        pairs=_pairs(entries, [truth == model.called for model in models]),
        warnings=(
            *warnings,
            *comparison_warnings(len(entries), fitted, split, truth, groups, min_support),
        ),
    )


def _check(entries: Sequence[Entry]) -> None:
    if len(entries) < 2:
        raise ValueError(f"a comparison needs at least two models, not {len(entries)}")
    reference, *others = entries
    for number, entry in enumerate(others, 1):
        if entry.entry in {earlier.entry for earlier in entries[:number]}:
            raise ValueError(f"{entry.entry} is named twice")
        expected, actual = reference.predictions, entry.predictions
        if len(expected) != len(actual):
            raise ValueError(
                f"{entry.entry} does not have the same rows as {reference.entry}: {len(actual)} "
                f"instead of {len(expected)}"
            )
        for column in ("ids", "labels", "groups"):
            for row, (left, right) in enumerate(
                zip(getattr(expected, column), getattr(actual, column), strict=True)
            ):
                if left != right:
                    raise ValueError(
                        f"{entry.entry} does not have the same rows as {reference.entry}: the "
                        f"{column} differ, first in row {row} ({right!r} instead of {left!r})"
                    )


def _measure(
    entry: Entry,
    model: BinaryPredictions,
    truth: Bools,
    groups: Partition,
    caps: Sequence[verdicts.Cap],
    confidence: float,
    dataset_groups: Collection[str],
) -> Compared:
    overall = metrics.overall_metrics(truth, model.called, model.scores, confidence)
    assert overall.confusion is not None  # there are rows
    by_group = []
    for name, rows in groups.rows.items():
        counts = rates.confusion(truth[rows], model.called[rows])
        fpr, fnr = rates.fpr(counts, confidence), rates.fnr(counts, confidence)
        by_group.append(GroupRates(group=name, fpr=fpr, fnr=fnr))
    cap_verdicts = criteria.judge_caps(caps, by_group, dataset_groups, confidence)
    return Compared(
        entry=entry.entry,
        run_id=entry.run_id,
        step=entry.step,
        evaluation_id=entry.evaluation_id,
        name=entry.name,
        base_model=entry.base_model,
        template=entry.template,
        rule=entry.rule,
        threshold=entry.threshold,
        confusion=overall.confusion,
        f1=overall.f1,
        accuracy=overall.accuracy,
        auc=overall.auc,
        fpr=overall.fpr,
        fnr=overall.fnr,
        groups=tuple(by_group),
        caps=cap_verdicts,
        caps_verdict=verdicts.summarise(cap_verdicts),
        worst_excess=_worst_excess(cap_verdicts),
        pareto=False,  # set when all models are measured
    )


def _worst_excess(caps: Sequence[CapVerdict]) -> WorstExcess:
    excesses = [(cap.observed - cap.max, cap) for cap in caps if cap.observed is not None]
    if not excesses:
        reason = "no capped group has rows to count" if caps else "there are no caps"
        return WorstExcess(value=None, group=None, metric=None, reason=reason)
    value, worst = max(excesses, key=lambda pair: pair[0])
    return WorstExcess(value=value, group=worst.group, metric=worst.metric)


def pareto_front(points: Sequence[Point]) -> list[bool]:
    """Return, for each point, True if it is on the Pareto front of F1 and worst excess.

    A point is on the front if no point is at least as good in both coordinates and better in one.
    Equal points are on it together. A point with a missing coordinate is not on the front and
    dominates no other.
    """

    def is_dominated(f1: float, excess: float) -> bool:
        return any(
            a is not None and b is not None and a >= f1 and b <= excess and (a, b) != (f1, excess)
            for a, b in points
        )

    return [
        f1 is not None and excess is not None and not is_dominated(f1, excess)
        for f1, excess in points
    ]


def _pairs(entries: Sequence[Entry], correct: Sequence[Bools]) -> tuple[Pair, ...]:
    """Return McNemar's exact test for every pair, with `p_holm` adjusted over all pairs."""
    pairs = list(itertools.combinations(range(len(entries)), 2))
    tests = [paired(correct[first], correct[second]) for first, second in pairs]
    adjusted = holm([test.p_value for test in tests])
    return tuple(
        Pair(
            first=entries[first].entry,
            second=entries[second].entry,
            paired=test.model_copy(update={"p_holm": p_holm}),
        )
        for (first, second), test, p_holm in zip(pairs, tests, adjusted, strict=True)
    )
