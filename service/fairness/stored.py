"""Stored predictions (Parquet, as the worker writes them) back into what a report is made from."""

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
"""Before a label in the name of the column with its probabilities."""
METADATA_KEY = b"fairtune"
"""Key of the file's metadata under which the writer says what the columns do not."""


class StoredPredictions(NamedTuple):
    predictions: Predictions | None
    """Of the labelled rows; None where no row has a label."""
    labels: list[str]
    """Those of the probability columns, in the file's order."""
    without_label: int
    """Rows."""


def read_predictions(source: Path | BinaryIO, positive_label: str) -> StoredPredictions:
    """What a predictions file holds.

    The scores are the positive label's. Raises ValueError where the file is no such file,
    lacks that label, or mixes splits or checkpoints; OSError.
    """
    table = _open(source).read()
    names = [name for name in table.column_names if name.startswith(PROBABILITY)]
    labels = [name.removeprefix(PROBABILITY) for name in names]
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise ValueError(f"not a predictions file: it has no column {missing[0]!r}")
    if positive_label not in labels:
        raise ValueError(f"the predictions are over {labels}, not over {positive_label!r}")
    columns: dict[str, list[Any]] = table.to_pydict()
    rows = [row for row, label in enumerate(columns["label"]) if label is not None]
    if not rows:
        return StoredPredictions(None, labels, len(columns["label"]))

    def labelled(name: str) -> list[Any]:
        return [columns[name][row] for row in rows]

    def single_value(name: str) -> Any:
        values = set(columns[name])
        if len(values) > 1:
            raise ValueError(f"the file's rows are of more than one {name}")
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
    """What the file's writer said of it beside its rows ({"truncated": rows}); {} without any.

    Raises ValueError where the file is not readable as Parquet or says something else; OSError.
    """
    content = (_open(source).metadata.metadata or {}).get(METADATA_KEY, b"{}")
    metadata = json.loads(content)
    if not isinstance(metadata, dict):
        raise ValueError("the predictions file's metadata are no JSON object")  # noqa: TRY004 - data
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
