"""Several models on the same rows, side by side: a pure function, as the bias report is."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from service.fairness import criteria, metrics, rates, verdicts
from service.fairness.baselines import LabelCounts
from service.fairness.columns import Answers, Parts, answers, equal, parts
from service.fairness.paired import holm, paired
from service.fairness.predictions import Predictions
from service.fairness.schema import CapVerdict, ReportWarning
from service.fairness.schema_compare import (
    Compared,
    ComparedCap,
    Comparison,
    ComparisonData,
    Pair,
    WorstExcess,
)
from service.fairness.schema_detail import GroupRates, Rule

if TYPE_CHECKING:
    from service.fairness.columns import Bools

__all__ = ["Entry", "compare", "pareto_front"]

Point: TypeAlias = tuple[float | None, float | None]
"""F1 (more is better) and the worst excess over a cap (less is better)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One model. `predictions` are decided by `rule` already; the rest is said about it."""

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
    train_counts: LabelCounts | None = None,
    warnings: Iterable[ReportWarning] = (),
) -> Comparison:
    """Hold every model against the same caps on the same rows, and every two against each other.

    `train_counts` says which groups the data has elsewhere: a cap on one that this split lacks is
    inconclusive, on any other it is not applicable. `warnings` are put before those found here.

    Raises ValueError where there are fewer than two entries, where two have the same name, where
    the confidence is not in [0.5, 1), and where the rows are not the same in the same order: it
    names the entry that differs from the first one, and in what.
    """
    rates.check_confidence(confidence)
    _check(entries)
    rows, asked = entries[0].predictions, tuple(caps)
    truth = equal(rows.labels, positive_label)
    models = [answers(one.predictions, positive_label) for one in entries]
    groups = parts(rows.groups, {cap.group for cap in asked})
    measured = [
        _measure(entry, model, truth, groups, asked, confidence, train_counts or {})
        for entry, model in zip(entries, models, strict=True)
    ]
    # Without caps that apply the second figure is the same for all: the F1 alone counts.
    free = not any(cap.observed is not None for one in measured for cap in one.caps)
    front = pareto_front(
        [(one.f1.value, 0.0 if free else one.worst_excess.value) for one in measured]
    )
    found = [*_fitted_here(entries, split)]
    found += _warnings(len(entries), split, truth, groups, min_support)
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
        caps=tuple(ComparedCap(group=cap.group, metric=cap.metric, max=cap.max) for cap in asked),
        min_f1=min_f1,
        settings_of=settings_of,
        entries=tuple(
            one.model_copy(update={"pareto": on_front})
            for one, on_front in zip(measured, front, strict=True)
        ),
        pairs=_pairs(entries, [truth == model.called for model in models]),
        warnings=(*warnings, *found),
    )


def _check(entries: Sequence[Entry]) -> None:
    if len(entries) < 2:
        raise ValueError(f"a comparison is of at least two models, not {len(entries)}")
    first, *others = entries
    for number, one in enumerate(others, 1):
        if one.entry in {earlier.entry for earlier in entries[:number]}:
            raise ValueError(f"{one.entry} is named twice")
        ours, theirs = first.predictions, one.predictions
        if len(ours) != len(theirs):
            raise ValueError(
                f"{one.entry} has other rows than {first.entry}: {len(theirs)} instead of "
                f"{len(ours)}"
            )
        for name in ("ids", "labels", "groups"):
            for row, (left, right) in enumerate(
                zip(getattr(ours, name), getattr(theirs, name), strict=True)
            ):
                if left != right:
                    raise ValueError(
                        f"{one.entry} has other rows than {first.entry}: the {name} differ, first "
                        f"in row {row} ({right!r} instead of {left!r})"
                    )


def _measure(
    entry: Entry,
    model: Answers,
    truth: Bools,
    groups: Parts,
    caps: Sequence[verdicts.Cap],
    confidence: float,
    train: LabelCounts,
) -> Compared:
    overall = metrics.overall_metrics(truth, model.called, model.scores, confidence)
    assert overall.confusion is not None  # there are rows
    by_group = []
    for name, rows in groups.rows.items():
        counts = rates.confusion(truth[rows], model.called[rows])
        fpr, fnr = rates.fpr(counts, confidence), rates.fnr(counts, confidence)
        by_group.append(GroupRates(group=name, fpr=fpr, fnr=fnr))
    judged = criteria.judge(caps, by_group, train, confidence)
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
        caps=judged,
        caps_verdict=verdicts.summarise(judged),
        worst_excess=_worst_excess(judged),
        pareto=False,  # until all are measured
    )


def _worst_excess(caps: Sequence[CapVerdict]) -> WorstExcess:
    over = [(cap.observed - cap.max, cap) for cap in caps if cap.observed is not None]
    if not over:
        reason = "no cap was asked for"
        if caps:
            reason = "no cap is on a group with rows to count"
        return WorstExcess(value=None, group=None, metric=None, reason=reason)
    value, worst = max(over, key=lambda pair: pair[0])
    return WorstExcess(value=value, group=worst.group, metric=worst.metric)


def pareto_front(points: Sequence[Point]) -> list[bool]:
    """Whether each point is on the front: no other is as good in both figures and better in one.

    Equal points are on it together. A point without either figure is not, and bars no other.
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


def _pairs(entries: Sequence[Entry], right: Sequence[Bools]) -> tuple[Pair, ...]:
    """McNemar's exact test of every two, p_holm over all of them."""
    both = list(itertools.combinations(range(len(entries)), 2))
    tests = [paired(right[one], right[two]) for one, two in both]
    adjusted = holm([test.p_value for test in tests])
    return tuple(
        Pair(
            first=entries[one].entry,
            second=entries[two].entry,
            paired=test.model_copy(update={"p_holm": p_holm}),
        )
        for (one, two), test, p_holm in zip(both, tests, adjusted, strict=True)
    )


def _fitted_here(entries: Sequence[Entry], split: str) -> Iterator[ReportWarning]:
    fitted = [one.entry for one in entries if one.rule == "fitted"]
    if split == "validation" and fitted:
        yield ReportWarning(
            code="threshold_fitted_here",
            detail=f"The thresholds of {', '.join(fitted)} were fitted on these very rows: figures "
            "at them are better than they would be on others.",
        )


def _warnings(
    models: int, split: str, truth: Bools, groups: Parts, min_support: int
) -> Iterator[ReportWarning]:
    if split == "test":
        yield ReportWarning(
            code="choosing_on_test",
            detail=f"The best of {models} models on these rows looks better there than it is: "
            "choose on the validation split, and let the test split judge what was chosen.",
        )
    if truth.all() or not truth.any():
        yield ReportWarning(
            code="one_class",
            detail="Every row is of one class: FPR or FNR and AUC cannot be computed.",
        )
    for name, rows in groups.rows.items():
        if len(rows) < min_support:
            yield ReportWarning(
                code="small_group", detail=f"{name} has {len(rows)} rows, fewer than {min_support}."
            )
    if groups.values > len(groups.rows):
        yield ReportWarning(
            code="groups_left_out",
            detail=f"Of {groups.values} groups the {len(groups.rows)} largest, and those with a "
            "cap, are shown.",
        )
