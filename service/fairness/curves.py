"""What the report's plots are drawn from: ROC curves, score histograms, a sweep of thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.fairness.calibration import calibration
from service.fairness.columns import Split
from service.fairness.schema import Estimate
from service.fairness.schema_detail import Curves, RocCurve, ScoreHistogram, Sweep
from service.fairness.thresholds import called_at

if TYPE_CHECKING:
    from service.fairness.columns import Bools, Floats, Ints

ROC_POINTS = 200
HISTOGRAM_BINS = 20
SWEEP_STEPS = 100
"""Steps from threshold 0 to 1: one more threshold than that."""


def curves(split: Split, error: Estimate) -> Curves:
    """Of the model under report: all rows first, then each group by name.

    `error` is the calibration error of all rows.
    """
    truth, scores = split.truth, split.tuned.scores
    named = [(None, truth, scores)] + [
        (name, truth[rows], scores[rows]) for name, rows in split.groups.rows.items()
    ]
    drawn = (roc(*each) for each in named)
    return Curves(
        roc=tuple(curve for curve in drawn if curve is not None),
        histograms=tuple(histogram(*each) for each in named),
        calibration=calibration(truth, scores, split.confidence, error),
        sweep=sweep(split),
    )


def roc(group: str | None, truth: Bools, scores: Floats) -> RocCurve | None:
    """The curve's corners, thinned to at most `ROC_POINTS` at equal distances along it, its ends
    among them; None of a single class.
    """
    import numpy as np
    from sklearn.metrics import roc_curve

    if truth.all() or not truth.any():
        return None
    fpr, tpr, _ = roc_curve(truth, scores)
    if len(fpr) > ROC_POINTS:
        along = fpr + tpr
        kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], ROC_POINTS)))
        fpr, tpr = fpr[kept], tpr[kept]
    return RocCurve(group=group, fpr=tuple(fpr.tolist()), tpr=tuple(tpr.tolist()))


def histogram(group: str | None, truth: Bools, scores: Floats) -> ScoreHistogram:
    """Rows by score, in `HISTOGRAM_BINS` bins that are closed on the right, the first on both."""
    import numpy as np

    places = np.searchsorted(np.linspace(0, 1, HISTOGRAM_BINS + 1)[1:-1], scores)
    return ScoreHistogram(
        group=group,
        positives=tuple(np.bincount(places[truth], minlength=HISTOGRAM_BINS).tolist()),
        negatives=tuple(np.bincount(places[~truth], minlength=HISTOGRAM_BINS).tolist()),
    )


def sweep(split: Split) -> Sweep:
    """Figures at thresholds of equal distance. What cannot be computed at one is None there."""
    import numpy as np

    thresholds = np.arange(SWEEP_STEPS + 1) / SWEEP_STEPS
    truth, scores = split.truth, split.tuned.scores
    positives, tp = int(truth.sum()), called_at(scores[truth], thresholds)
    fp = called_at(scores[~truth], thresholds)
    fpr, fnr = {}, {}
    for name, rows in split.groups.rows.items():
        own = truth[rows]
        negatives, hits = scores[rows][~own], scores[rows][own]
        fpr[name] = _shares(called_at(negatives, thresholds), len(negatives))
        fnr[name] = _shares(len(hits) - called_at(hits, thresholds), len(hits))
    return Sweep(
        thresholds=tuple(thresholds.tolist()),
        f1=_shares(2 * tp, tp + fp + positives),
        precision=_shares(tp, tp + fp),
        recall=_shares(tp, positives),
        fpr=fpr,
        fnr=fnr,
    )


def _shares(counts: Ints, totals: Ints | int) -> tuple[float | None, ...]:
    import numpy as np

    totals = np.broadcast_to(totals, counts.shape)
    return tuple(
        count / total if total else None
        for count, total in zip(counts.tolist(), totals.tolist(), strict=True)
    )
