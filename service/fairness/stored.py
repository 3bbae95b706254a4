"""Read stored predictions (Parquet files that the worker writes) as inputs of a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from service.fairness.predictions import Predictions

COLUMNS = (
    "id",
    "group",
    "source",
    "detail",
    "label",
    "score",
    "prediction",
    "split",
    "checkpoint",
)
PROBABILITY = "probability:"
"""Prefix of the name of a label's column of probabilities."""
METADATA_KEY = b"fairtune"
"""Key of the Parquet metadata that holds the writer's additional facts as JSON."""


class StoredPredictions(NamedTuple):
    predictions: Predictions | None
    """Predictions on the labelled rows; None if no row has a label."""
    labels: list[str]
    """Labels of the probability columns, in the order of the file."""
    without_label: int
    """Number of rows without a label."""


def read_predictions(source: Path | BinaryIO, positive_label: str) -> StoredPredictions:
    """Return the contents of a predictions file, with the positive label's probability as score.

    Raises ValueError if it is not a predictions file, if it lacks that label, or if it mixes splits
    or checkpoints. Raises OSError if it cannot be read.
    """
    table = _open(source).read()
    names = [name for name in table.column_names if name.startswith(PROBABILITY)]
    labels = [name.removeprefix(PROBABILITY) for name in names]
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise ValueError(f"not a predictions file: it has no column {missing[0]!r}")
    if positive_label not in labels:
        raise ValueError(f"the predictions have the labels {labels}, but not {positive_label!r}")
    columns: dict[str, list[Any]] = table.to_pydict()
    rows = [row for row, label in enumerate(columns["label"]) if label is not None]
    if not rows:
        return StoredPredictions(None, labels, len(columns["label"]))

    def labelled(name: str) -> list[Any]:
        return [columns[name][row] for row in rows]

    def single_value(name: str) -> Any:
        values = set(columns[name])
        if len(values) > 1:
            raise ValueError(f"the rows of the file have more than one {name}")
        return values.pop()

    return StoredPredictions(
        Predictions(
            ids=labelled("id"),
            labels=labelled("label"),
            groups=labelled("group"),
            sources=labelled("source"),
            details=labelled("detail"),
            predictions=labelled("prediction"),
            scores=labelled(PROBABILITY + positive_label),
            label_scores={label: labelled(PROBABILITY + label) for label in labels},
            split=single_value("split"),
            checkpoint_step=single_value("checkpoint"),
        ),
        labels,
        len(columns["label"]) - len(rows),
    )


def read_metadata(source: Path | BinaryIO) -> dict[str, Any]:
    """Return the writer's additional facts ({"truncated": rows}); {} if there are none.

    Raises ValueError if the file is not Parquet or the facts are not a JSON object, and OSError if
    it cannot be read.
    """
    content = (_open(source).metadata.metadata or {}).get(METADATA_KEY, b"{}")
    metadata = json.loads(content)
    if not isinstance(metadata, dict):
        raise ValueError("the metadata of the predictions file is not a JSON object")  # noqa: TRY004 - data
    return metadata


def _open(source: Path | BinaryIO) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not isinstance(source, Path):
        source.seek(0)
    try:
        return pq.ParquetFile(source)
    except pa.ArrowInvalid as error:
        raise ValueError(f"not a predictions file: {error}") from error
