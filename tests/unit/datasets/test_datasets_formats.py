"""The registry of formats: an entry and its reader are all that a new format needs."""

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from service.datasets import formats
from service.datasets.formats import DatasetFormat, FormatName, describe_formats
from service.datasets.lines import read_lines
from service.datasets.mapping import Mapping
from service.datasets.problems import Flaw
from service.datasets.rows import read_rows


def read_pipes(file, required):
    """Lines of `comment|class`, after a first line that is no row."""
    assert required == ["comment"]
    for number, raw in read_lines(file):
        if number > 1:
            text, _, label = raw.decode().strip().partition("|")
            yield number, {"comment": text, "class": label} if label else Flaw("no_pipe", "no pipe")


PIPES = DatasetFormat(
    name="pipes",
    description="lines with a pipe between text and label",
    read=read_pipes,
    unit="records",
    recognises=lambda head: head.startswith(b"PIPES"),
    columns={"text": "comment", "label": "class"},
    options=frozenset({"labels", "group"}),
)
CONTENT = " PIPES\na|hate\nb|normal\n"


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The format exists in this test only, by one entry before that of CSV."""
    monkeypatch.setattr(formats, "FORMATS", (PIPES, *formats.FORMATS))


@pytest.mark.parametrize("file_format", ["auto", "pipes"])
def test_a_registered_format_is_detected_and_read(file_format, make, refuse):
    built = make({"train": CONTENT}, file_format=file_format)
    rows = [(row.text, row.label) for row in read_rows(built.path)]
    assert rows == [("a", "hate"), ("b", "normal")]
    assert built.warnings[-1].code == "no_group"
    error = refuse({"train": CONTENT + "c\n"}, file_format=file_format)
    assert [item.pointer for item in error.errors] == ["/train/records/4"]


@pytest.mark.parametrize("file_format", ["auto", "pipes"])
def test_options_that_a_format_does_not_take_are_refused_by_name(file_format, refuse):
    mapping = Mapping(text="comment", id=None, labels=["hate", "normal"])
    error = refuse({"train": CONTENT}, file_format=file_format, mapping=mapping)
    assert [item.pointer for item in error.errors] == ["/mapping/id", "/mapping/text"]
    assert error.errors[1].detail == (
        "the format pipes does not take mapping.text; it takes group, labels"
    )


def test_other_files_are_still_detected(make, good):
    for content in (good, json.dumps(good), "text,label\na,hate\nb,normal\n"):
        assert make({"train": content}).stats.rows == 2


def test_a_registered_format_is_offered_by_the_api():
    adapter = TypeAdapter(FormatName)
    assert adapter.validate_python("pipes") == "pipes"
    assert adapter.json_schema()["enum"] == ["auto", "pipes", "jsonl", "messages", "csv", "unified"]
    assert "pipes: lines with a pipe between text and label" in describe_formats()
    with pytest.raises(ValidationError, match="'auto', 'pipes'"):
        adapter.validate_python("parquet")


def test_every_format_is_described_and_has_its_own_name():
    names = [entry.name for entry in formats.FORMATS]
    assert len(set(names)) == len(names)
    assert "auto" not in names
    assert all(entry.description and entry.description[-1] != "." for entry in formats.FORMATS)
