"""Columns of a split as arrays: true labels, binary predictions, and partitions of the rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from service.fairness.predictions import Predictions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bools: TypeAlias = NDArray[np.bool_]
    Floats: TypeAlias = NDArray[np.float64]
    Ints: TypeAlias = NDArray[np.int64]

MAX_PARTS = 200
"""Maximum number of groups, sources or finer labels in a report, so that a column of free text
cannot make it a hundred megabytes large. Groups with a cap are always included."""


@dataclass(frozen=True, slots=True, eq=False)
class BinaryPredictions:
    """One model's predictions, positive label versus all others; one entry per row."""

    called: Bools
    """True where the row is predicted positive."""
    scores: Floats
    """Probability of the positive label."""


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Rows by the value of a column; rows without a value belong to no part."""

    rows: dict[str, Ints]
    """Ascending row numbers of each reported part, by value."""
    values: int
    """Number of distinct values in the column, reported or not."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The evaluated rows. Arrays are parallel, one entry per row."""

    truth: Bools
    """True where the row has the positive label."""
    tuned: BinaryPredictions
    base: BinaryPredictions | None
    groups: Partition
    sources: Partition
    details: Partition
    confidence: float
    min_support: int


def equal(column: Sequence[str | None], value: str) -> Bools:
    """Return a mask of the entries that equal `value`."""
    import numpy as np

    return np.fromiter((entry == value for entry in column), dtype=np.bool_, count=len(column))


def binary_predictions(predictions: Predictions, positive_label: str) -> BinaryPredictions:
    """Return the predicted labels as positive versus other, with the scores."""
    import numpy as np

    return BinaryPredictions(
        called=equal(predictions.predictions, positive_label),
        scores=np.array(predictions.scores, dtype=np.float64),
    )


def at_threshold(model: BinaryPredictions, threshold: float) -> BinaryPredictions:
    """Return predictions that are positive where the score is at least `threshold`."""
    return BinaryPredictions(called=model.scores >= threshold, scores=model.scores)


def partition(column: Sequence[str | None], required: Collection[str] = ()) -> Partition:
    """Group the row numbers by value, in O(n log n).

    A column with more than `MAX_PARTS` values keeps those in `required` and then the largest;
    ties are broken by name.
    """
    import numpy as np

    names = sorted({value for value in column if value is not None})
    number: dict[str | None, int] = {name: index for index, name in enumerate(names)}
    numbers = np.fromiter((number.get(value, -1) for value in column), np.int64, count=len(column))
    order = np.argsort(numbers, kind="stable")
    ends = np.searchsorted(numbers[order], np.arange(len(names) + 1))
    rows = {
        name: order[start:end] for name, start, end in zip(names, ends[:-1], ends[1:], strict=True)
    }
    ranked = sorted(rows, key=lambda name: (name not in required, -len(rows[name]), name))
    return Partition(
        rows={name: rows[name] for name in sorted(ranked[:MAX_PARTS])}, values=len(names)
    )
