"""Vectorised bootstrap intervals (Efron 1979).

A figure is computed on `RESAMPLES` resamples of the rows; q1 and q2 are the (1 - confidence) / 2
and (1 + confidence) / 2 quantiles of the results. The `percentile` interval is [q1, q2]. A figure
that sampling errors can only increase, such as the largest of several differences or a sum of
distances, is biased upwards on the rows and more so on their resamples: its percentile interval
excludes 0 even if the true value is 0. Such a figure gets the `basic` interval (Davison and Hinkley
1997, section 5.2), [2 x figure - q2, 2 x figure - q1], which corrects for that bias.

Counts of resampled rows follow the multinomial distribution, so a figure that depends on counts
alone is computed from drawn counts, without copying rows. Resamples in which the figure cannot be
computed are excluded. If every resample gives the same value, the data does not tell the
uncertainty of the figure, and the interval is None.

The resamples depend on the seed alone, not on the order of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from service.fairness.metrics import calibration_bin
from service.fairness.schema import Confusion

if TYPE_CHECKING:
    import numpy as np

    from service.fairness.columns import Bools, Floats, Ints

    Generator: TypeAlias = np.random.Generator

RESAMPLES = 2000
"""Resamples; about 50 of them lie outside each end of a 95% interval."""

MAX_STEPS = 2048
"""Maximum number of distinct scores without rounding; see `group_by_score`."""

MAX_COUNTS_IN_MEMORY = 2**21
"""Maximum number of drawn counts in memory."""


class Interval(NamedTuple):
    lower: float | None
    upper: float | None


NO_INTERVAL = Interval(None, None)


def percentile(drawn: Floats, confidence: float) -> Interval:
    """Return the percentile interval of a figure; `drawn` is NaN where it cannot be computed."""
    import numpy as np

    defined = drawn[~np.isnan(drawn)]
    if not defined.size or defined.min() == defined.max():
        return NO_INTERVAL
    lower, upper = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(lower), float(upper))


def basic(drawn: Floats, figure: float, confidence: float) -> Interval:
    """Return the basic interval of a figure in [0, 1]; `figure` is its value on the rows.

    The ends are clipped to [0, 1], and moved to the figure where they would exclude it.
    """
    lower, upper = percentile(drawn, confidence)
    if lower is None or upper is None:
        return NO_INTERVAL
    return Interval(
        max(0.0, min(figure, 2 * figure - upper)), min(1.0, max(figure, 2 * figure - lower))
    )


def f1_interval(counts: Confusion, confidence: float, seed: int) -> Interval:
    """Return the percentile interval of F1, from drawn counts that have positive rows."""
    import numpy as np

    tp, fp, fn, _ = draw_confusion(counts, np.random.default_rng(seed)).T
    with np.errstate(invalid="ignore"):
        f1 = 2 * tp / (2 * tp + fp + fn)
    return percentile(np.where(tp + fn > 0, f1, np.nan), confidence)


def draw_confusion(counts: Confusion, generator: Generator) -> Ints:
    """Draw confusion counts: columns TP, FP, FN and TN, one row per resample."""
    import numpy as np

    cells = np.array(
        [
            counts.true_positive,
            counts.false_positive,
            counts.false_negative,
            counts.true_negative,
        ]
    )
    return generator.multinomial(cells.sum(), cells / cells.sum(), size=RESAMPLES)


class ScoreSteps(NamedTuple):
    """Rows grouped by ascending score; the columns are parallel, one entry per step."""

    positives: Ints
    negatives: Ints
    gap_positives: Floats
    """Mean of 1 - score over the positive rows of the step."""
    gap_negatives: Floats
    """Mean of 0 - score over the negative rows of the step."""
    bins: Sequence[int]
    """Index of the first step of each non-empty calibration bin."""


def group_by_score(truth: Bools, scores: Floats) -> ScoreSteps:
    """Group rows with the same score; with more than `MAX_STEPS` scores, neighbours as well.

    Steps of several scores have about the same number of rows. No step crosses an edge of a
    calibration bin, so calibration errors stay exact.
    """
    import numpy as np

    distinct, step_of_row, rows = np.unique(scores, return_inverse=True, return_counts=True)
    bins = calibration_bin(distinct)
    # Both terms rise with the score, so their sum identifies the step.
    step = bins + (
        np.arange(len(distinct))
        if len(distinct) <= MAX_STEPS
        else (np.cumsum(rows) - rows) * MAX_STEPS // len(scores)
    )
    _, first, step = np.unique(step, return_index=True, return_inverse=True)
    step_of_row = step[step_of_row]
    positives = np.bincount(step_of_row, weights=truth)
    negatives = np.bincount(step_of_row, weights=~truth)
    with np.errstate(invalid="ignore"):
        gap_positives = np.bincount(step_of_row, weights=truth * (1 - scores)) / positives
        gap_negatives = np.bincount(step_of_row, weights=~truth * -scores) / negatives
    return ScoreSteps(
        positives.astype(np.int64),
        negatives.astype(np.int64),
        np.nan_to_num(gap_positives),
        np.nan_to_num(gap_negatives),
        np.unique(bins[first], return_index=True)[1].tolist(),
    )


def score_intervals(
    truth: Bools, scores: Floats, auc: float | None, error: float, confidence: float, seed: int
) -> tuple[Interval, Interval]:
    """Return the percentile interval of the ROC AUC and the basic one of the calibration error.

    `auc` (None: one class) and `error` are the figures on the rows. If scores were grouped
    (`group_by_score`), the drawn areas count pairs within a step as ties; the areas are shifted by
    the difference that this makes to `auc`.
    """
    import numpy as np

    steps = group_by_score(truth, scores)
    areas, errors = [], []
    for positives, negatives in _draw_steps(steps, np.random.default_rng(seed)):
        areas.append(_area(positives, negatives))
        gaps = positives * steps.gap_positives + negatives * steps.gap_negatives
        by_bin = np.add.reduceat(gaps, steps.bins, axis=1)
        errors.append(np.abs(by_bin).sum(axis=1) / len(scores))
    calibration = basic(np.concatenate(errors), error, confidence)
    if auc is None:
        return NO_INTERVAL, calibration
    shift = auc - _area(steps.positives[None], steps.negatives[None])
    # The shift may push an area out of [0, 1] by a rounding error.
    areas_drawn = np.clip(np.concatenate(areas) + shift, 0, 1)
    return percentile(areas_drawn, confidence), calibration


def _draw_steps(steps: ScoreSteps, generator: Generator) -> Iterator[tuple[Ints, Ints]]:
    """Yield batches of drawn positive and negative rows per step, one line per resample."""
    import numpy as np

    cells = np.concatenate([steps.positives, steps.negatives])
    total, batch = cells.sum(), max(1, MAX_COUNTS_IN_MEMORY // len(cells))
    for start in range(0, RESAMPLES, batch):
        drawn = generator.multinomial(total, cells / total, size=min(batch, RESAMPLES - start))
        yield drawn[:, : len(steps.positives)], drawn[:, len(steps.positives) :]


def _area(positives: Ints, negatives: Ints) -> Floats:
    """Return the ROC AUC of each resample; NaN where a class is missing.

    This is the probability that a positive row is on a higher step than a negative one, with ties
    counted as one half.
    """
    import numpy as np

    below = np.cumsum(negatives, axis=1) - negatives / 2
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    with np.errstate(invalid="ignore"):
        areas: Floats = (positives * below).sum(axis=1) / pairs
    return areas
