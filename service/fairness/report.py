"""Predictions in, bias report out: a pure function, the same answer for the same input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from service.fairness import metrics, rates, verdicts
from service.fairness.baselines import LabelCounts, group_majority
from service.fairness.predictions import Predictions
from service.fairness.report_warnings import report_warnings
from service.fairness.schema import (
    Baselines,
    BiasReport,
    CapVerdict,
    GroupMetrics,
    GroupReport,
    MinF1,
    Overall,
    OverallMetrics,
    RateEstimate,
    ReportData,
    ReportMeta,
    ReportSettings,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bools: TypeAlias = NDArray[np.bool_]

__all__ = ["BiasReport", "ReportMeta", "build_report"]


def build_report(
    tuned: Predictions,
    *,
    meta: ReportMeta,
    positive_label: str,
    base: Predictions | None = None,
    train_counts: LabelCounts | None = None,
    caps: Iterable[verdicts.Cap] = (),
    min_f1: float | None = None,
    confidence: float = 0.95,
    min_support: int = 30,
) -> BiasReport:
    """Report on `tuned`, beside `base` on the same rows where the base model was scored.

    `train_counts` (see `baselines.label_counts`) teaches the group-majority baseline and says which
    groups the data has: a capped group seen there but not in this split is inconclusive, one seen
    nowhere is not applicable. `confidence` is that of the two-sided intervals and, by itself, of
    each one-sided limit. `min_support` is in rows.

    Raises ValueError when the confidence is not in [0.5, 1), when `base` is about other rows than
    `tuned`, or when the split or step that the predictions carry is not the one in `meta`.
    """
    import numpy as np

    rates.check_confidence(confidence)
    _check_origin(tuned, base, meta)
    truth = np.array([label == positive_label for label in tuned.labels])
    after = _Scored(tuned, positive_label)
    before = None if base is None else _Scored(base, positive_label)
    overall = _overall(truth, after, before, confidence)
    groups = tuple(
        _group_report(name, rows, truth, after, before, confidence, min_support)
        for name, rows in _rows_by_group(tuned.groups)
    )
    judged = tuple(_judge(cap, groups, train_counts or {}, confidence) for cap in caps)
    data = ReportData(
        rows=len(tuned),
        positives=int(truth.sum()),
        negatives=int((~truth).sum()),
        without_group=sum(group is None for group in tuned.groups),
        labels=dict(sorted(Counter(tuned.labels).items())),
    )
    return BiasReport(
        meta=meta,
        settings=ReportSettings(
            positive_label=positive_label, confidence=confidence, min_support=min_support
        ),
        data=data,
        overall=overall,
        groups=groups,
        baselines=_baselines(tuned.groups, truth, train_counts, positive_label, confidence),
        caps=judged,
        caps_verdict=verdicts.summarise(judged),
        min_f1=None if min_f1 is None else _min_f1(min_f1, overall.tuned),
        warnings=tuple(
            report_warnings(set(tuned.predictions), meta, data, groups, judged, min_support)
        ),
    )


class _Scored:
    """A model's answers as arrays: the rows called positive, and the positive label's score."""

    def __init__(self, predictions: Predictions, positive_label: str) -> None:
        import numpy as np

        self.called = np.array([label == positive_label for label in predictions.predictions])
        self.scores = np.array(predictions.scores, dtype=np.float64)


def _check_origin(tuned: Predictions, base: Predictions | None, meta: ReportMeta) -> None:
    if base is not None and not tuned.same_rows_as(base):
        raise ValueError("base and tuned predictions are not about the same rows in the same order")
    for predictions in (tuned, base):
        if predictions is not None and predictions.split not in (None, meta.split):
            raise ValueError(f"predictions are of {predictions.split!r}, meta says {meta.split!r}")
    if tuned.checkpoint_step not in (None, meta.checkpoint_step):
        raise ValueError(
            f"predictions are of step {tuned.checkpoint_step}, meta says {meta.checkpoint_step}"
        )


def _overall(truth: Bools, tuned: _Scored, base: _Scored | None, confidence: float) -> Overall:
    after = metrics.overall_metrics(truth, tuned.called, tuned.scores, confidence)
    if base is None:
        return Overall(tuned=after, base=None, difference=None)
    before = metrics.overall_metrics(truth, base.called, base.scores, confidence)
    return Overall(tuned=after, base=before, difference=metrics.differences(after, before))


def _rows_by_group(groups: Sequence[str | None]) -> Iterator[tuple[str, Bools]]:
    """Each group's name, in order, with the mask of its rows."""
    import numpy as np

    column = np.array(groups, dtype=object)
    for name in sorted({group for group in groups if group is not None}):
        yield name, column == name


def _group_report(
    name: str,
    rows: Bools,
    truth: Bools,
    tuned: _Scored,
    base: _Scored | None,
    confidence: float,
    min_support: int,
) -> GroupReport:
    def measure(model: _Scored) -> GroupMetrics:
        counts = rates.confusion(truth[rows], model.called[rows])
        return GroupMetrics(
            confusion=counts,
            fpr=rates.fpr(counts, confidence),
            fnr=rates.fnr(counts, confidence),
            accuracy=rates.accuracy(counts, confidence),
        )

    n, positives = int(rows.sum()), int(truth[rows].sum())
    return GroupReport(
        group=name,
        n=n,
        positives=positives,
        negatives=n - positives,
        small_sample=n < min_support,
        tuned=measure(tuned),
        base=None if base is None else measure(base),
    )


def _judge(
    cap: verdicts.Cap, groups: Sequence[GroupReport], train: LabelCounts, confidence: float
) -> CapVerdict:
    observed: RateEstimate | None = None
    if cap.group in train:
        observed = rates.unknown_rate("no rows in this split")
    for group in groups:
        if group.group == cap.group:
            observed = group.tuned.fpr if cap.metric == "fpr" else group.tuned.fnr
    return verdicts.judge_cap(cap, observed, confidence)


def _baselines(
    groups: Sequence[str | None],
    truth: Bools,
    train: LabelCounts | None,
    positive_label: str,
    confidence: float,
) -> Baselines:
    import numpy as np

    always = metrics.overall_metrics(truth, np.ones_like(truth), None, confidence)
    if not train:
        majority = metrics.unknown_metrics("the training split's labels were not given")
    else:
        called = np.array(group_majority(groups, train, positive_label))
        majority = metrics.overall_metrics(truth, called, None, confidence)
    return Baselines(always_positive=always, group_majority=majority)


def _min_f1(least: float, overall: OverallMetrics) -> MinF1:
    value = overall.f1.value
    if value is None:
        return MinF1(min_f1=least, value=None, verdict=None, reason=overall.f1.reason)
    return MinF1(min_f1=least, value=value, verdict="met" if value >= least else "not_met")
