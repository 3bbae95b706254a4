"""A split's label probabilities as a Parquet file and as the bias report's input."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from service.fairness import Predictions
from service.fairness.stored import COLUMNS, METADATA_KEY
from worker.data.rows import Row

_ROUNDING = 1e-9


def predicted_label(labels: Sequence[str], probabilities: Sequence[float]) -> str:
    """Return the most probable label; of equally probable ones the first in sorted order."""
    best = max(probabilities)
    return min(label for label, value in zip(labels, probabilities, strict=True) if value == best)


def write_predictions(
    path: Path,
    rows: Sequence[Row],
    labels: Sequence[str],
    probabilities: Sequence[Sequence[float]],
    positive_label: str,
    step: int | None,
    truncated: int | None = None,
) -> None:
    """Write one line per row, labelled or not, in the order of `rows`, replacing `path` atomically.

    Columns: id, group, source, detail, label (null: unlabelled), score (probability of the positive
    label), prediction, split, checkpoint (step; null: the base model), and probability:<label> for
    each label. `prediction` is the most probable label, independent of any report's threshold.

    `truncated`, the number of rows whose text was truncated, is stored in the file's metadata under
    ``fairtune``, in a JSON object.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    positive = labels.index(positive_label)
    columns = {
        name: pa.array([getattr(row, name) for row in rows], pa.string())
        for name in ("id", "group", "source", "detail", "label")
    }
    columns["score"] = pa.array([values[positive] for values in probabilities], pa.float64())
    columns["prediction"] = pa.array([predicted_label(labels, values) for values in probabilities])
    columns["split"] = pa.array([row.split for row in rows], pa.string())
    columns["checkpoint"] = pa.array([step] * len(rows), pa.int64())
    for index, label in enumerate(labels):
        columns[f"probability:{label}"] = pa.array(
            [values[index] for values in probabilities], pa.float64()
        )
    table = pa.table(columns)
    if truncated is not None:
        table = table.replace_schema_metadata({METADATA_KEY: json.dumps({"truncated": truncated})})
    path.parent.mkdir(exist_ok=True)
    staging = path.with_suffix(".tmp")
    try:
        with staging.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staging, path)  # noqa: PTH105 - explicit about replacing
    finally:
        staging.unlink(missing_ok=True)


def read_probabilities(
    path: Path, rows: Sequence[Row], labels: Sequence[str], positive_label: str, step: int | None
) -> list[list[float]]:
    """Return the probabilities that `write_predictions` wrote with the same other arguments.

    Raises ValueError if the file is not one that it would write for these arguments, and OSError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except pa.ArrowException as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    if table.column_names != [*COLUMNS, *(f"probability:{label}" for label in labels)]:
        raise ValueError(f"{path.name} has different columns")
    columns = table.to_pydict()
    for name in ("id", "group", "source", "detail", "label", "split"):
        if columns[name] != [getattr(row, name) for row in rows]:
            raise ValueError(f"{path.name} belongs to different rows: column {name} differs")
    stored = list(zip(*(columns[f"probability:{label}"] for label in labels), strict=True))
    for values in stored:
        if (
            not all(isinstance(value, float) for value in values)
            or not abs(sum(values) - 1) < _ROUNDING
        ):
            raise ValueError(f"{path.name} holds values that are not probabilities")
    positive = labels.index(positive_label)
    if (
        columns["score"] != [values[positive] for values in stored]
        or columns["prediction"] != [predicted_label(labels, values) for values in stored]
        or columns["checkpoint"] != [step] * len(rows)
    ):
        raise ValueError(
            f"{path.name} has scores or predictions that its probabilities do not give"
        )
    return [list(values) for values in stored]


def labelled_predictions(
    rows: Sequence[Row],
    labels: Sequence[str],
    probabilities: Sequence[Sequence[float]],
    positive_label: str,
    step: int | None,
) -> Predictions | None:
    """Return the predictions of the labelled rows; None if no row has a label."""
    labelled_rows = [
        (row, row.label, values)
        for row, values in zip(rows, probabilities, strict=True)
        if row.label is not None
    ]
    if not labelled_rows:
        return None
    positive = labels.index(positive_label)
    return Predictions(
        ids=[row.id for row, _, _ in labelled_rows],
        labels=[label for _, label, _ in labelled_rows],
        groups=[row.group for row, _, _ in labelled_rows],
        sources=[row.source for row, _, _ in labelled_rows],
        details=[row.detail for row, _, _ in labelled_rows],
        predictions=[predicted_label(labels, values) for _, _, values in labelled_rows],
        scores=[values[positive] for _, _, values in labelled_rows],
        label_scores={
            label: [values[index] for _, _, values in labelled_rows]
            for index, label in enumerate(labels)
        },
        split=labelled_rows[0][0].split,
        checkpoint_step=step,
    )
