"""Predictions are read back as they were written, or not at all."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.fairness.stored import read_metadata, read_predictions
from worker.data.rows import Row
from worker.scoring.predictions import labelled_predictions, read_probabilities, write_predictions

LABELS = ["hate", "normal"]
SCORED = [
    Row("a", "text", None, "hate", "lgbtq", "made", None, "test"),
    Row("b", "text", None, None, None, None, "fine", "test"),
]
PROBABILITIES = [[0.1 + 0.2, 0.7], [1 / 3, 2 / 3]]


def test_probabilities_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "base-test.parquet"
    write_predictions(path, SCORED, LABELS, PROBABILITIES, "hate", None)
    assert read_probabilities(path, SCORED, LABELS, "hate", None) == PROBABILITIES
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("count", [0, 2])
def test_how_many_rows_were_cut_is_in_the_files_metadata(tmp_path, count):
    path = tmp_path / "base-test.parquet"
    write_predictions(path, SCORED, LABELS, PROBABILITIES, "hate", None, count)
    assert json.loads(pq.read_schema(path).metadata[b"fairtune"]) == {"truncated": count}
    assert read_metadata(path) == {"truncated": count}
    assert read_probabilities(path, SCORED, LABELS, "hate", None) == PROBABILITIES


def test_predictions_are_what_the_service_reads(tmp_path):
    """All but the rows without a label, with the probability of every label."""
    path = tmp_path / "base-test.parquet"
    write_predictions(path, SCORED, LABELS, PROBABILITIES, "hate", 12, 1)
    predictions, labels, _ = read_predictions(path, "hate")
    assert labels == LABELS
    assert predictions == labelled_predictions(SCORED, LABELS, PROBABILITIES, "hate", 12)


@pytest.mark.parametrize(
    ("rows", "labels", "positive", "step"),
    [
        (SCORED[:1], LABELS, "hate", None),
        (SCORED[::-1], LABELS, "hate", None),
        (SCORED, ["hate", "other"], "hate", None),
        (SCORED, [*LABELS, "other"], "hate", None),
        (SCORED, LABELS, "normal", None),
        (SCORED, LABELS, "hate", 12),
    ],
)
def test_predictions_of_something_else_are_not_read(tmp_path, rows, labels, positive, step):
    path = tmp_path / "base-test.parquet"
    write_predictions(path, SCORED, LABELS, PROBABILITIES, "hate", None)
    with pytest.raises(ValueError, match=r"base-test\.parquet"):
        read_probabilities(path, rows, labels, positive, step)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("id", ["a", "c"]),
        ("label", ["normal", None]),
        ("group", [None, None]),
        ("score", [0.5, 0.5]),
        ("prediction", ["hate", "normal"]),
        ("probability:hate", [0.9, 1 / 3]),
        ("probability:hate", [float("nan"), 1 / 3]),
        ("probability:normal", [0.9, 2 / 3]),
        ("probability:normal", [None, 2 / 3]),
        ("probability:normal", ["0.7", "0.6"]),
    ],
)
def test_predictions_that_were_changed_are_not_read(tmp_path, column, values):
    path = tmp_path / "base-test.parquet"
    write_predictions(path, SCORED, LABELS, PROBABILITIES, "hate", None)
    table = pq.read_table(path)
    index = table.column_names.index(column)
    pq.write_table(table.set_column(index, column, pa.array(values)), path)
    with pytest.raises(ValueError, match=r"base-test\.parquet"):
        read_probabilities(path, SCORED, LABELS, "hate", None)


def test_a_file_that_is_no_table_is_not_read(tmp_path):
    path = tmp_path / "base-test.parquet"
    write_predictions(path, SCORED, LABELS, PROBABILITIES, "hate", None)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"base-test\.parquet"):
        read_probabilities(path, SCORED, LABELS, "hate", None)
