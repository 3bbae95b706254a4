"""Good uploads: every format, splits, mappings, drops, and what the statistics say."""

import hashlib
import io
import json
import tempfile

import pytest

from service.datasets.build import build
from service.datasets.mapping import Mapping
from service.datasets.rows import SCHEMA, Row, preview, read_rows

UNIFIED = [
    {
        "text": "one",
        "label_binary": "hate",
        "label_multiclass": "toxic_implicit",
        "target_group_norm": "lgbtq",
        "persona_tag": "gay",
        "source_dataset": "toxigen",
        "rationale_text": None,
        "original_id": "toxigen_1",
        "split": "val",
    },
    {
        "text": "two",
        "label_binary": "normal",
        "label_multiclass": "offensive",
        "target_group_norm": "mexican",
        "persona_tag": "mexican",
        "source_dataset": "hatexplain",
        "rationale_text": "because",
        "original_id": "7_gab",
        "split": "train",
    },
]


def rows_of(built, split=None):
    return list(read_rows(built.path, split))


def codes(built):
    return [warning.code for warning in built.warnings]


def test_every_column_of_labelled_lines(make):
    row = {
        "id": "x",
        "text": " kept as it is \n",
        "label": " hate ",
        "group": " g ",
        "source": "s",
        "detail": "d",
        "rationale": "r" * 300,
    }
    built = make({"train": [row, {"text": "b", "label": "normal", "group": " "}]})
    assert rows_of(built) == [
        Row(
            id="x",
            split="train",
            text=" kept as it is \n",
            label="hate",
            group="g",
            source="s",
            detail="d",
            rationale="r" * 300,
        ),
        Row(id="train-2", split="train", text="b", label="normal"),
    ]
    assert built.dropped.total == 0
    assert built.completions is None


@pytest.mark.parametrize(
    "content",
    [
        b'{"text": "a", "label": "hate"}\n{"text": "b", "label": "normal"}',
        b'\xef\xbb\xbf{"text": "a", "label": "hate"}\r\n\r\n \n{"text":"b","label":"normal"}\r\n',
        b"text,label\na,hate\nb,normal",
        b'\xef\xbb\xbf"text", label ,x\r\n\r\n"a",hate,1\r\nb,"normal",2\r\n',
        b'[{"text": "a", "label": "hate"}, {"text": "b", "label": "normal"}]',
        b'\xef\xbb\xbf \n[\n{"text": "a", "label": "hate"},{"text": "b", "label": "normal"}]\n',
        b'[{"text": "a", "label_binary": "hate"}, {"text": "b", "label_binary": "normal"}]',
    ],
)
def test_formats_are_told_apart_and_give_the_same_bytes(content, make):
    whole = make({"train": b'{"label":"hate","text":"a"}\n{"label":"normal","text":"b"}\n'})
    assert make({"train": content}).content_hash == whole.content_hash


def test_the_unified_array_brings_its_own_names(make):
    built = make({"train": json.dumps(UNIFIED)})
    first, second = rows_of(built)
    assert first == Row(
        id="toxigen_1",
        split="train",
        text="one",
        label="hate",
        group="lgbtq",
        source="toxigen",
        detail="toxic_implicit",
    )
    assert (second.id, second.rationale) == ("7_gab", "because")
    kept = make({"train": json.dumps(UNIFIED)}, mapping=Mapping(group="persona_tag", id=None))
    assert [row.group for row in rows_of(kept)] == ["gay", "mexican"]
    assert [row.id for row in rows_of(kept)] == ["train-1", "train-2"]


def test_the_format_can_be_named(make, refuse, good):
    lines = [{"messages": [], "text": "a", "label": "hate"}, good[1]]
    assert make({"train": lines}, file_format="jsonl").stats.kind == "text"
    error = refuse({"train": good}, file_format="messages")
    assert error.errors[0].pointer == "/train/lines/1/messages"
    error = refuse({"train": json.dumps(UNIFIED)}, file_format="jsonl")
    assert "for a JSON array of rows, set format to unified" in error.errors[0].detail
    error = refuse({"train": good}, file_format="unified")
    assert error.errors[0].detail.startswith("is not a JSON array")
    error = refuse({"train": good}, file_format="csv")
    assert error.errors[0].pointer == "/train/lines/1/text"
    # If the format is stated, its column names apply even to rows without the label.
    error = refuse({"train": json.dumps([good[0], good[1]])}, file_format="unified")
    assert "no row of train has a label" in error.detail


def test_csv_records_may_hold_line_ends_commas_and_quotes(make):
    built = make({"train": 'text,label\n"a, ""b""\nc",hate\nd,normal\n'})
    assert [row.text for row in rows_of(built)] == ['a, "b"\nc', "d"]


def test_one_file_per_split_and_the_split_column_in_it_is_ignored(make):
    rows = [
        {"text": "a", "label": "hate", "split": "test"},
        {"text": "b", "label": "normal", "split": "val"},
        {"text": "c", "label": "normal", "split": "train"},
        {"text": "d", "label": "normal", "split": 7},
        {"text": "e", "label": "normal", "split": None},
    ]
    built = make({"train": rows, "test": [{"text": "z", "label": "hate", "split": "test"}]})
    assert {name: split.rows for name, split in built.stats.splits.items()} == {
        "train": 5,
        "test": 1,
    }
    (warning,) = [item for item in built.warnings if item.code == "split_ignored"]
    assert warning.count == 3
    assert warning.detail == (
        "In train, 3 of 5 rows have another split in the column 'split' (other 1, test 1, "
        "validation 1). The file determines the split; the column is ignored."
    )


def test_one_file_with_a_split_column(make, refuse):
    names = ["train", "train", "validation", "val", "valid", "dev", "test"]
    rows = [
        {"text": str(n), "label": ("hate", "normal")[n % 2], "part": name}
        for n, name in enumerate(names)
    ]
    built = make({"file": rows}, mapping=Mapping(split="part"))
    assert [row.split for row in rows_of(built)] == [
        "train",
        "train",
        *["validation"] * 4,
        "test",
    ]
    assert [row.id for row in rows_of(built, "validation")] == [
        f"validation-{n}" for n in range(1, 5)
    ]
    error = refuse({"file": rows})
    assert error.errors[0].pointer == "/file/lines/1/split"
    assert "mapping.split can name another column" in error.errors[0].detail
    assert "upload the file as `train`" in error.errors[0].detail
    for wrong in ("trane", "eval", 3):
        error = refuse({"file": [*rows, rows[0] | {"part": wrong}]}, mapping=Mapping(split="part"))
        assert error.errors[0].pointer == "/file/lines/8/part"
        assert "must be train, validation (or val, valid, dev) or test" in error.errors[0].detail


def test_labels_as_declared(make, refuse):
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": "1"}, {"text": "c", "label": True}]
    mapping = Mapping(labels={"0": "normal", "1": "hate", "true": "hate"})
    assert [row.label for row in rows_of(make({"train": rows}, mapping=mapping))] == [
        "normal",
        "hate",
        "hate",
    ]
    mapping = Mapping(labels=["spam", "ham"])
    rows = [{"text": "a", "label": "spam"}, {"text": "b", "label": "ham"}]
    assert make({"train": rows}, mapping=mapping).stats.labels == {"ham": 1, "spam": 1}
    error = refuse({"train": [*rows, {"text": "c", "label": "hate"}]}, mapping=mapping)
    assert "'hate' is not one of the labels 'spam', 'ham' declared in mapping.labels" in (
        error.detail
    )


def test_a_text_without_a_label_teaches_nothing(refuse, good):
    for train, mapping in (
        ([{"text": "a"}, {"text": "b", "label": None}], Mapping()),
        (good, Mapping(label=None)),
    ):
        error = refuse({"train": train, "test": good}, mapping=mapping)
        assert error.errors[0].pointer == "/train"
        assert "mapping.label" in error.detail


def test_labels_may_be_missing_from_all_rows_of_another_split(make, good):
    built = make({"train": good, "test": [{"text": "c"}]})
    assert built.stats.splits["train"].has_labels
    assert not built.stats.splits["test"].has_labels
    assert not built.stats.has_labels


def test_drop_takes_the_unlabelled_rows_of_a_labelled_split_only(make, good):
    train = [{"text": "u"}, *good, {"text": "v"}]
    built = make({"train": train, "test": [{"text": "w"}]}, on_invalid="drop")
    assert [row.text for row in rows_of(built)] == ["a", "b", "w"]
    assert built.dropped.by_kind == {"missing_label": 2}
    assert [row.pointer for row in built.dropped.rows] == [
        "/train/lines/1/label",
        "/train/lines/4/label",
    ]


def test_statistics(make):
    def row(text, label, group=None):
        return {"text": text, "label": label, "group": group}

    built = make(
        {
            "train": [row("a", "hate", "x"), row("bb", "normal", "x"), row("a ", "normal")],
            "validation": [row(" a", "hate", "y"), row("new", "normal", "y")],
            "test": [row("a", "hate", "x"), row("bb", "normal"), row("new", "normal", "z")],
        }
    )
    stats = built.stats
    assert (stats.kind, stats.rows, stats.has_labels, stats.has_groups) == ("text", 8, True, True)
    assert stats.labels == {"hate": 3, "normal": 5}
    assert stats.groups == {"x": 3, "y": 2, "z": 1}
    assert stats.group_labels == {
        "x": {"hate": 2, "normal": 1},
        "y": {"hate": 1, "normal": 1},
        "z": {"normal": 1},
    }
    train = stats.splits["train"]
    assert (train.rows, train.labels) == (3, {"hate": 1, "normal": 2})
    assert train.group_labels == {"x": {"hate": 1, "normal": 1}}
    assert list(stats.splits) == ["train", "validation", "test"]
    assert stats.text_length.model_dump() == {"min": 1, "median": 2, "p90": 3, "p99": 3, "max": 3}
    assert stats.repeated_rows == 1  # "a " in train
    assert stats.shared_rows == {"validation": 1, "test": 3}
    assert stats.conflicting_rows == 4  # every "a"
    assert {item.code: item.count for item in built.warnings} == {
        "shared_rows": 4,
        "conflicting_labels": 4,
        "repeated_rows": 1,
        "no_group": 2,
    }


def test_warnings_of_unread_columns_and_unseen_labels(make, good):
    mapping = Mapping(labels=["hate", "normal", "other"])
    rows = [row | {"group": "g", "Label": 1} for row in good]
    test = [{"text": label[0] * 3, "label": label, "group": "g"} for label in mapping.labels]
    built = make({"train": rows, "test": test}, mapping=mapping)
    assert {item.code: item.detail for item in built.warnings} == {
        "unseen_labels": "The label occurs in test but not in train: 'other'.",
        "unread_columns": "Columns not read: 'Label'.",
    }


def test_the_file_is_named_after_its_hash_and_does_not_change(make, good, tmp_path):
    built = make({"train": good})
    assert built.path == tmp_path / f"{built.content_hash}.parquet"
    assert hashlib.sha256(built.path.read_bytes()).hexdigest() == built.content_hash
    assert make({"train": good}).content_hash == built.content_hash
    assert make({"train": good[::-1]}).content_hash != built.content_hash
    assert len(list(tmp_path.iterdir())) == 2


def test_many_rows_from_a_spooled_file(tmp_path):
    """More rows than a batch of the row file, and more bytes than the spool keeps in memory."""
    with tempfile.SpooledTemporaryFile(max_size=1000) as file:
        for n in range(20_000):
            label = ("hate", "normal")[n % 2]
            file.write(json.dumps({"text": f"text {n}", "label": label}).encode() + b"\n")
        built = build({"train": file}, tmp_path)
    rows = rows_of(built)
    assert [row.text for row in rows] == [f"text {n}" for n in range(20_000)]
    assert rows[-1].id == "train-20000"


def test_a_file_is_read_from_its_start(tmp_path):
    file = io.BytesIO(b"text,label\na,hate\nb,normal\n")
    file.read()
    assert build({"train": file}, tmp_path).stats.rows == 2


def test_preview(make, good):
    test = [{"text": str(n), "label": "hate"} for n in range(30)]
    path = make({"train": good, "test": test}).path
    assert [row.text for row in preview(path, "test", 3)] == ["0", "1", "2"]
    assert len(preview(path, "test")) == 20
    assert [row.text for row in preview(path, limit=3)] == ["a", "b", "0"]
    assert preview(path, "validation", 5) == []
    assert preview(path, "test", 0) == []


def test_the_schema_is_fixed():
    assert SCHEMA.names == [
        "id",
        "text",
        "messages",
        "label",
        "group",
        "source",
        "detail",
        "rationale",
        "split",
    ]
