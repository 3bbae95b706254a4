"""A split's rows as arrays: what is true of them, what two models said, which belong together."""

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

MOST_PARTS = 200
"""Groups, sources or finer labels that a report holds at most, so that a column of free text
cannot make it a hundred megabytes. Groups that a cap names are among them in any case."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """One model's answers, positive label against the rest; one entry per row."""

    called: Bools
    """Whether the row was called positive."""
    scores: Floats
    """The positive label's probability."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The rows of each value of a column, by name; rows without a value are in none."""

    rows: dict[str, Ints]
    """Row numbers, rising, of each part that is reported."""
    values: int
    """Different values in the column, reported or not."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The rows under report. Arrays are parallel, one entry per row."""

    truth: Bools
    """Whether the row has the positive label."""
    tuned: Answers
    base: Answers | None
    groups: Parts
    sources: Parts
    details: Parts
    confidence: float
    min_support: int


def equal(column: Sequence[str | None], value: str) -> Bools:
    """Which entries are `value`."""
    import numpy as np

    return np.fromiter((each == value for each in column), dtype=np.bool_, count=len(column))


def answers(predictions: Predictions, positive_label: str) -> Answers:
    """The model's answers with its predictions as they are."""
    import numpy as np

    return Answers(
        called=equal(predictions.predictions, positive_label),
        scores=np.array(predictions.scores, dtype=np.float64),
    )


def at_threshold(model: Answers, threshold: float) -> Answers:
    """The same scores, called positive from the threshold on."""
    return Answers(called=model.scores >= threshold, scores=model.scores)


def parts(column: Sequence[str | None], keep: Collection[str] = ()) -> Parts:
    """Which rows belong to which value, in O(n log n).

    Of more than `MOST_PARTS` values those in `keep` and then the largest are kept, of equally large
    ones the first by name.
    """
    import numpy as np

    names = sorted({value for value in column if value is not None})
    number: dict[str | None, int] = {name: place for place, name in enumerate(names)}
    places = np.fromiter((number.get(value, -1) for value in column), np.int64, count=len(column))
    order = np.argsort(places, kind="stable")
    ends = np.searchsorted(places[order], np.arange(len(names) + 1))
    rows = {
        name: order[start:end] for name, start, end in zip(names, ends[:-1], ends[1:], strict=True)
    }
    kept = sorted(rows, key=lambda name: (name not in keep, -len(rows[name]), name))[:MOST_PARTS]
    return Parts(rows={name: rows[name] for name in sorted(kept)}, values=len(names))
