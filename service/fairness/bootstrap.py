"""Intervals from rows drawn again with replacement (Efron 1979), vectorised.

A figure is computed on `RESAMPLES` draws of as many rows as there are, and q are the
(1 - confidence) / 2 and (1 + confidence) / 2 quantiles of what came out. `percentile` intervals
are [q1, q2]. A figure that errors can only push up from 0, as the largest of several differences or
a sum of distances, comes out too high on the rows and higher still on draws of them: its percentile
interval does not hold 0 when 0 is true. It gets the `basic` interval (Davison and Hinkley 1997,
section 5.2), [2 x figure - q2, 2 x figure - q1], which takes that bias off.

A figure that depends on counts alone is computed from counts drawn from the multinomial
distribution, which is what counts of drawn rows follow: no row is copied. Draws in which the figure
cannot be computed are left out. Where no draw differs from another the data cannot say how sure the
figure is, and the ends are None.

The seed alone decides the draws, and they do not depend on the order of the rows.
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
"""Draws; the ends of a 95% interval are then some 50 draws from either side."""

MOST_STEPS = 2048
"""Different scores up to which every one is kept apart; more are put together, see `steps`."""

AT_ONCE = 2**21
"""Counts held in memory at once."""


class Interval(NamedTuple):
    lower: float | None
    upper: float | None


NO_INTERVAL = Interval(None, None)


def percentile(drawn: Floats, confidence: float) -> Interval:
    """The interval that the draws of one figure give; NaN where it could not be computed."""
    import numpy as np

    defined = drawn[~np.isnan(drawn)]
    if not defined.size or defined.min() == defined.max():
        return NO_INTERVAL
    lower, upper = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(lower), float(upper))


def basic(drawn: Floats, figure: float, confidence: float) -> Interval:
    """The same for a figure from 0 to 1, from its value on the rows themselves.

    The ends are kept within that and, where they would leave out the figure, moved to it.
    """
    lower, upper = percentile(drawn, confidence)
    if lower is None or upper is None:
        return NO_INTERVAL
    return Interval(
        max(0.0, min(figure, 2 * figure - upper)), min(1.0, max(figure, 2 * figure - lower))
    )


def f1_interval(counts: Confusion, confidence: float, seed: int) -> Interval:
    """Of F1, from drawn confusion counts."""
    import numpy as np

    tp, fp, fn, _ = draw_confusion(counts, np.random.default_rng(seed)).T
    with np.errstate(invalid="ignore"):
        return percentile(2 * tp / (2 * tp + fp + fn), confidence)


def draw_confusion(counts: Confusion, generator: Generator) -> Ints:
    """Counts of drawn rows: TP, FP, FN and TN in the columns, a draw a line."""
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


class Steps(NamedTuple):
    """Rows put together by score, rising; columns are parallel, one entry per step."""

    positives: Ints
    negatives: Ints
    gap_positives: Floats
    """Mean of 1 - score over the step's positive rows."""
    gap_negatives: Floats
    """Mean of 0 - score over its negative rows."""
    bins: Sequence[int]
    """Where each calibration bin that has rows begins."""


def steps(truth: Bools, scores: Floats) -> Steps:
    """Put rows of one score together; of more than `MOST_STEPS` scores, neighbours too.

    A step then holds about the same number of rows as any other and never reaches over one of the
    calibration bins' edges, so that calibration errors stay exact.
    """
    import numpy as np

    distinct, place, rows = np.unique(scores, return_inverse=True, return_counts=True)
    bins = calibration_bin(distinct)
    # Both parts rise with the score, so that their sum tells any two steps apart.
    step = bins + (
        np.arange(len(distinct))
        if len(distinct) <= MOST_STEPS
        else (np.cumsum(rows) - rows) * MOST_STEPS // len(scores)
    )
    _, first, step = np.unique(step, return_index=True, return_inverse=True)
    place = step[place]
    positives = np.bincount(place, weights=truth)
    negatives = np.bincount(place, weights=~truth)
    with np.errstate(invalid="ignore"):
        gap_positives = np.bincount(place, weights=truth * (1 - scores)) / positives
        gap_negatives = np.bincount(place, weights=~truth * -scores) / negatives
    return Steps(
        positives.astype(np.int64),
        negatives.astype(np.int64),
        np.nan_to_num(gap_positives),
        np.nan_to_num(gap_negatives),
        np.unique(bins[first], return_index=True)[1].tolist(),
    )


def score_intervals(
    truth: Bools, scores: Floats, auc: float | None, error: float, confidence: float, seed: int
) -> tuple[Interval, Interval]:
    """Percentile interval of the area under the ROC curve, basic one of the calibration error.

    `auc` (None: one class) and `error` are the figures on the rows themselves. Where scores were
    put together (`steps`), the drawn areas count their pairs as ties; all of them are moved by what
    that did to `auc`.
    """
    import numpy as np

    put = steps(truth, scores)
    areas, errors = [], []
    for positives, negatives in _draw_steps(put, np.random.default_rng(seed)):
        areas.append(_area(positives, negatives))
        gaps = positives * put.gap_positives + negatives * put.gap_negatives
        by_bin = np.add.reduceat(gaps, put.bins, axis=1)
        errors.append(np.abs(by_bin).sum(axis=1) / len(scores))
    calibration = basic(np.concatenate(errors), error, confidence)
    if auc is None:
        return NO_INTERVAL, calibration
    moved = auc - _area(put.positives[None], put.negatives[None])
    # Moving them may push a draw past the ends by what is rounded.
    areas_drawn = np.clip(np.concatenate(areas) + moved, 0, 1)
    return percentile(areas_drawn, confidence), calibration


def _draw_steps(put: Steps, generator: Generator) -> Iterator[tuple[Ints, Ints]]:
    """Drawn rows per step, positive and negative ones, a draw a line; some draws at a time."""
    import numpy as np

    cells = np.concatenate([put.positives, put.negatives])
    total, many = cells.sum(), max(1, AT_ONCE // len(cells))
    for start in range(0, RESAMPLES, many):
        drawn = generator.multinomial(total, cells / total, size=min(many, RESAMPLES - start))
        yield drawn[:, : len(put.positives)], drawn[:, len(put.positives) :]


def _area(positives: Ints, negatives: Ints) -> Floats:
    """Chance that a positive row is on a higher step than a negative one, ties counted one half;
    NaN where either class is missing. One line per draw.
    """
    import numpy as np

    below = np.cumsum(negatives, axis=1) - negatives / 2
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    with np.errstate(invalid="ignore"):
        areas: Floats = (positives * below).sum(axis=1) / pairs
    return areas
