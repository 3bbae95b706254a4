"""A split's label probabilities as a Parquet file, and as what the bias report is made from."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from service.fairness import Predictions
from service.fairness.stored import COLUMNS, METADATA_KEY
from worker.data.rows import Row

_ROUNDING = 1e-9


def predicted(labels: Sequence[str], probabilities: Sequence[float]) -> str:
    """The most probable label; of several equally probable ones the first in sorted order."""
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
    """One line per row, labelled or not, in the order of `rows`; written aside, then renamed.

    Columns: id, group, source, detail, label (null: not known), score (probability of the positive
    label), prediction, split, checkpoint (step; null: the base model), and probability:<label> for
    each label. `prediction` is the most probable label, whatever threshold a report is by.

    `truncated`, the number of rows whose text was cut to fit, stands in the file's metadata under
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
    columns["prediction"] = pa.array([predicted(labels, values) for values in probabilities])
    columns["split"] = pa.array([row.split for row in rows], pa.string())
    columns["checkpoint"] = pa.array([step] * len(rows), pa.int64())
    for place, label in enumerate(labels):
        columns[f"probability:{label}"] = pa.array(
            [values[place] for values in probabilities], pa.float64()
        )
    table = pa.table(columns)
    if truncated is not None:
        table = table.replace_schema_metadata({METADATA_KEY: json.dumps({"truncated": truncated})})
    path.parent.mkdir(exist_ok=True)
    aside = path.with_suffix(".tmp")
    try:
        with aside.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)  # noqa: PTH105 - one call that replaces, said as such
    finally:
        aside.unlink(missing_ok=True)


def read_probabilities(
    path: Path, rows: Sequence[Row], labels: Sequence[str], positive_label: str, step: int | None
) -> list[list[float]]:
    """The probabilities that `write_predictions` was given with the same other arguments.

    Raises ValueError where the file is not what it would write for them, OSError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except pa.ArrowException as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    if table.column_names != [*COLUMNS, *(f"probability:{label}" for label in labels)]:
        raise ValueError(f"{path.name} has other columns")
    columns = table.to_pydict()
    for name in ("id", "group", "source", "detail", "label", "split"):
        if columns[name] != [getattr(row, name) for row in rows]:
            raise ValueError(f"{path.name} is of other rows: {name} differs")
    made = list(zip(*(columns[f"probability:{label}"] for label in labels), strict=True))
    for values in made:
        if (
            not all(isinstance(value, float) for value in values)
            or not abs(sum(values) - 1) < _ROUNDING
        ):
            raise ValueError(f"{path.name} holds what are no probabilities")
    positive = labels.index(positive_label)
    if (
        columns["score"] != [values[positive] for values in made]
        or columns["prediction"] != [predicted(labels, values) for values in made]
        or columns["checkpoint"] != [step] * len(rows)
    ):
        raise ValueError(f"{path.name} was not decided on as it is here")
    return [list(values) for values in made]


def labelled(
    rows: Sequence[Row],
    labels: Sequence[str],
    probabilities: Sequence[Sequence[float]],
    positive_label: str,
    step: int | None,
) -> Predictions | None:
    """The labelled rows' predictions; None where no row has a label."""
    kept = [
        (row, row.label, values)
        for row, values in zip(rows, probabilities, strict=True)
        if row.label is not None
    ]
    if not kept:
        return None
    positive = labels.index(positive_label)
    return Predictions(
        ids=[row.id for row, _, _ in kept],
        labels=[label for _, label, _ in kept],
        groups=[row.group for row, _, _ in kept],
        sources=[row.source for row, _, _ in kept],
        details=[row.detail for row, _, _ in kept],
        predictions=[predicted(labels, values) for _, _, values in kept],
        scores=[values[positive] for _, _, values in kept],
        label_scores={
            label: [values[place] for _, _, values in kept] for place, label in enumerate(labels)
        },
        split=kept[0][0].split,
        checkpoint_step=step,
    )
