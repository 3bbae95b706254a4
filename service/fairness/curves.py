"""Data of the report's plots: ROC curves, score histograms, and a threshold sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.fairness.calibration import calibration
from service.fairness.columns import Split
from service.fairness.schema import Estimate
from service.fairness.schema_curves import Curves, RocCurve, ScoreHistogram, Sweep
from service.fairness.thresholds import called_at

if TYPE_CHECKING:
    from service.fairness.columns import Bools, Floats, Ints

ROC_POINTS = 200
HISTOGRAM_BINS = 20
SWEEP_STEPS = 100
"""Steps from threshold 0 to 1; there is one threshold more than steps."""


def curves(split: Split, error: Estimate) -> Curves:
    """Return the plot data of the model under report: all rows first, then each group by name.

    `error` is the calibration error over all rows.
    """
    truth, scores = split.truth, split.tuned.scores
    subsets = [(None, truth, scores)] + [
        (name, truth[rows], scores[rows]) for name, rows in split.groups.rows.items()
    ]
    roc_curves = (roc(*subset) for subset in subsets)
    return Curves(
        roc=tuple(curve for curve in roc_curves if curve is not None),
        histograms=tuple(histogram(*subset) for subset in subsets),
        calibration=calibration(truth, scores, split.confidence, error),
        sweep=sweep(split),
    )


def roc(group: str | None, truth: Bools, scores: Floats) -> RocCurve | None:
    """Return the corners of the ROC curve; None for rows of a single class.

    A longer curve is thinned to `ROC_POINTS` points at equal distances, including both ends.
    """
    import numpy as np
    from sklearn.metrics import roc_curve

    if truth.all() or not truth.any():
        return None
    fpr, tpr, _ = roc_curve(truth, scores)
    if len(fpr) > ROC_POINTS:
        along = fpr + tpr
        thinned = np.unique(np.searchsorted(along, np.linspace(0, along[-1], ROC_POINTS)))
        fpr, tpr = fpr[thinned], tpr[thinned]
    return RocCurve(group=group, fpr=tuple(fpr.tolist()), tpr=tuple(tpr.tolist()))


def histogram(group: str | None, truth: Bools, scores: Floats) -> ScoreHistogram:
    """Count rows by score in `HISTOGRAM_BINS` bins, closed on the right (the first on both)."""
    import numpy as np

    bin_of_row = np.searchsorted(np.linspace(0, 1, HISTOGRAM_BINS + 1)[1:-1], scores)
    return ScoreHistogram(
        group=group,
        positives=tuple(np.bincount(bin_of_row[truth], minlength=HISTOGRAM_BINS).tolist()),
        negatives=tuple(np.bincount(bin_of_row[~truth], minlength=HISTOGRAM_BINS).tolist()),
    )


def sweep(split: Split) -> Sweep:
    """Return figures at equidistant thresholds; a figure that cannot be computed is None."""
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
