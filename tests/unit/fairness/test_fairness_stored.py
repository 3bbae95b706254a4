import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.fairness.stored import read_metadata, read_predictions

COLUMNS = {
    "id": ["1", "2", "3"],
    "group": ["a", None, "b"],
    "source": ["x", "x", None],
    "detail": [None, "slur", None],
    "label": ["hate", None, "normal"],
    "score": [0.5, 0.25, 0.125],
    "prediction": ["hate", "normal", "normal"],
    "split": ["test"] * 3,
    "checkpoint": [7] * 3,
    "probability:hate": [0.5, 0.25, 0.125],
    "probability:normal": [0.5, 0.75, 0.875],
}
TEXT = ("id", "group", "source", "detail", "label", "prediction", "split")


def stored(metadata=None, **changes):
    columns = {
        name: pa.array(values, pa.string()) if name in TEXT else pa.array(values)
        for name, values in (COLUMNS | changes).items()
        if values is not None
    }
    file = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file)
    return file


def test_labelled_rows_come_back_as_they_were_stored():
    found, labels, without_label = read_predictions(stored(), "hate")
    assert without_label == 1
    assert labels == ["hate", "normal"]
    assert (found.ids, found.labels) == (("1", "3"), ("hate", "normal"))
    assert (found.groups, found.sources, found.details) == (("a", "b"), ("x", None), (None, None))
    assert (found.predictions, found.scores) == (("hate", "normal"), (0.5, 0.125))
    assert found.label_scores == {"hate": (0.5, 0.125), "normal": (0.5, 0.875)}
    assert (found.split, found.checkpoint_step) == ("test", 7)


def test_a_path_serves_as_well_as_a_file_and_a_base_model_has_no_step(tmp_path):
    path = tmp_path / "base-test.parquet"
    path.write_bytes(stored(checkpoint=pa.array([None] * 3, pa.int64())).getvalue())
    found, *_ = read_predictions(path, "normal")
    assert found.checkpoint_step is None
    assert found.scores == (0.5, 0.875)


def test_without_a_label_there_is_nothing_to_report_on():
    assert read_predictions(stored(label=[None] * 3), "hate") == (None, ["hate", "normal"], 3)


def test_what_is_no_predictions_file_is_refused():
    with pytest.raises(ValueError, match=r"^not a predictions file: "):
        read_predictions(io.BytesIO(b"id,label\n"), "hate")
    with pytest.raises(ValueError, match=r"^not a predictions file: it has no column 'detail'$"):
        read_predictions(stored(detail=None), "hate")
    with pytest.raises(ValueError, match=r"have the labels \['hate', 'normal'\], but not 'spam'$"):
        read_predictions(stored(), "spam")
    with pytest.raises(ValueError, match=r"rows of the file have more than one split$"):
        read_predictions(stored(split=["test", "test", "train"]), "hate")
    with pytest.raises(ValueError, match=r"rows of the file have more than one checkpoint$"):
        read_predictions(stored(checkpoint=[7, 7, 8]), "hate")
    with pytest.raises(ValueError, match=r"^scores: row 0 \(id '1'\) has nan"):
        read_predictions(stored(**{"probability:hate": [float("nan"), 0.25, 0.125]}), "hate")


def test_facts_are_the_writers_own_words():
    file = stored({b"fairtune": b'{"truncated": 2}'})
    assert read_metadata(file) == {"truncated": 2}
    assert read_predictions(file, "hate")[1] == ["hate", "normal"]  # read again from its start
    assert read_metadata(stored()) == {}
    with pytest.raises(ValueError, match="not a JSON object"):
        read_metadata(stored({b"fairtune": b"[1]"}))
