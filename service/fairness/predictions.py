"""Predictions of one model on one split: parallel columns, validated once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ROUNDING = 1e-6
"""Tolerance outside [0, 1] within which a probability is clipped as a rounding error."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """One model's predictions on one split, one entry per row in every column.

    `scores` holds the probability of the positive label, in [0, 1]; `label_scores`, if present,
    one such column per label. `predictions` holds the predicted labels under any decision rule.
    `split` and `checkpoint_step` identify the rows and the weights.

    Sequences are stored as tuples. Raises ValueError, naming the first invalid row, if there are no
    rows, if columns differ in length, if an id, label or prediction is not text (or a group, source
    or detail neither text nor None), or if a score is NaN, infinite or outside [0, 1] by more than
    `ROUNDING`.
    """

    ids: Sequence[str]
    labels: Sequence[str]
    groups: Sequence[str | None]
    sources: Sequence[str | None]
    details: Sequence[str | None]
    predictions: Sequence[str]
    scores: Sequence[float]
    label_scores: Mapping[str, Sequence[float]] | None = None
    split: str | None = None
    checkpoint_step: int | None = None

    def __post_init__(self) -> None:
        columns = ("ids", "labels", "groups", "sources", "details", "predictions", "scores")
        for name in columns:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.ids:
            raise ValueError("predictions are empty: a report needs at least one row")
        for name in columns:
            self._check_length(name, len(getattr(self, name)))
        for name in ("ids", "labels", "predictions"):
            self._check_text(name, getattr(self, name), optional=False)
        for name in ("groups", "sources", "details"):
            self._check_text(name, getattr(self, name), optional=True)
        object.__setattr__(self, "scores", self._probabilities("scores", self.scores))
        if self.label_scores is not None:
            checked = {
                label: self._probabilities(f"label_scores[{label!r}]", column)
                for label, column in self.label_scores.items()
            }
            object.__setattr__(self, "label_scores", checked)

    def __len__(self) -> int:
        return len(self.ids)

    def same_rows_as(self, predictions: Predictions) -> bool:
        """Return True if both have the same ids, labels and groups in the same order."""
        columns = ("ids", "labels", "groups")
        return all(getattr(self, name) == getattr(predictions, name) for name in columns)

    def _check_length(self, name: str, length: int) -> None:
        if length != len(self.ids):
            raise ValueError(f"{name} has {length} entries, ids has {len(self.ids)}")

    def _check_text(self, name: str, column: Sequence[object], *, optional: bool) -> None:
        for row, value in enumerate(column):
            if not isinstance(value, str) and not (optional and value is None):
                expected = "text or None" if optional else "text"
                raise ValueError(f"{name}: {self._row(row)} has {value!r}, not {expected}")

    def _row(self, row: int) -> str:
        return f"row {row} (id {self.ids[row]!r})"

    def _probabilities(self, name: str, column: Iterable[float]) -> tuple[float, ...]:
        values = tuple(float(value) for value in column)
        self._check_length(name, len(values))
        for row, value in enumerate(values):
            if not math.isfinite(value):
                raise ValueError(f"{name}: {self._row(row)} has {value}, not a finite number")
            if not -ROUNDING <= value <= 1 + ROUNDING:
                raise ValueError(f"{name}: {self._row(row)} has {value}, outside [0, 1]")
        return tuple(min(1.0, max(0.0, value)) for value in values)
