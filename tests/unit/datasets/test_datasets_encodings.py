"""The same rows in every encoding, compression and line end are the same dataset."""

import gzip
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.datasets.lines import MAX_LINE_BYTES, read_lines
from service.datasets.rows import read_rows

CSV = 'text,label\n"caf\u00e9, \u201cx\u201d",hate\n"b \U0001f600",normal\n'
JSONL = '{"text": "caf\u00e9", "label": "hate"}\n{"text": "b", "label": "normal"}\n'
ARRAY = json.dumps(
    [
        {"text": "caf\u00e9", "label_binary": "hate"},
        {"text": "b", "label_binary": "normal"},
    ],
    ensure_ascii=False,
    indent=1,
)
MARKED = {
    "utf-8": "utf-8-sig",
    "utf-16": "utf-16",
    "utf-32": "utf-32",
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(
    "encoding",
    ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"],
)
@pytest.mark.parametrize("text", [CSV, JSONL, ARRAY], ids=["csv", "jsonl", "array"])
def test_the_same_rows_are_the_same_dataset(text, encoding, end, packed, make):
    data = text.replace("\n", end).encode(encoding)
    data = gzip.compress(data, mtime=0) if packed else data
    built = make({"train": data})
    assert built.content_hash == make({"train": text}).content_hash
    assert built.warnings == make({"train": text}).warnings


def test_marks_within_joined_files_and_before_one_another(make):
    lines = JSONL.splitlines(keepends=True)
    assert (
        make({"train": "\ufeff\ufeff" + lines[0] + "\ufeff" + lines[1]}).content_hash
        == make({"train": JSONL}).content_hash
    )


def test_a_carriage_return_within_quotes_belongs_to_the_text(make):
    built = make({"train": 'text,label\n"a\rb",hate\r"c",normal\r\n'})
    assert [row.text for row in read_rows(built.path)] == ["a\rb", "c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1\x15\x04\x15\x94\x02", "is a Parquet file, not plain text; convert it to a text"),
        (b"PK\x03\x04\x14\0\0\0\x08\0train.jsonl", "is a zip archive, not plain text; unpack"),
        (b"PK\x03\x04\x14\0\0\0\x08\0xl/workbook.xml", "is an Excel workbook (.xlsx)"),
        (bytes(range(256)) * 9, "is a binary file, not plain text; convert it"),
        (b"<!DOCTYPE html>\n<html>", "is an HTML page, not plain text; download the file itself"),
        (b"\n<html lang=en>", "is an HTML page"),
        (b"\xff\xfea\0,\0b\0\n", "begins as UTF-16 but is not valid UTF-16"),
        (gzip.compress(b"text,label\n" * 99, mtime=0)[:-4], "is a damaged gzip file"),
    ],
)
@pytest.mark.parametrize("field", ["train", "test", "file"])
@pytest.mark.parametrize("file_format", ["auto", "csv", "jsonl", "unified"])
def test_what_is_no_text_is_named_once_whatever_the_format(
    content, message, field, file_format, refuse
):
    files = {"train": CSV if file_format in ("auto", "csv") else JSONL, field: content}
    if file_format == "unified":
        files = {"train": ARRAY, field: content}
    if field == "file":
        del files["train"]
    error = refuse(files, file_format=file_format, on_invalid="drop")
    assert [item.pointer for item in error.errors] == [f"/{field}"]
    assert message in error.errors[0].detail
    assert error.detail.startswith(f"/{field}: ")


def test_windows_1252_is_named_with_the_remedy(refuse):
    error = refuse({"train": CSV.replace("\U0001f600", "").encode("cp1252")})
    assert error.errors[0].pointer == "/train/lines/2"
    assert error.errors[0].detail == (
        "is not valid UTF-8 at byte 5 of line 2 (the file may be in Windows-1252 or another "
        "encoding); save the file as UTF-8"
    )


def test_a_compressed_file_is_read_up_to_the_maximum_of_an_upload(refuse, make):
    data = gzip.compress(JSONL.encode(), mtime=0)
    assert make({"train": data}, max_file_bytes=len(JSONL.encode())).stats.rows == 2
    error = refuse({"train": data}, max_file_bytes=len(JSONL.encode()) - 1)
    assert "more than 67 bytes of content" in error.detail


@given(
    lines=st.lists(
        st.tuples(st.binary(max_size=30), st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=30
    ),
    block=st.integers(1, 40),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_do_not_depend_on_the_blocks_that_are_read(lines, block, monkeypatch):
    content = b"".join(line + end for line, end in lines)
    monkeypatch.setattr("service.datasets.lines._BLOCK_BYTES", block)
    read = list(read_lines(io.BytesIO(content)))
    assert [line for _, line in read] == content.splitlines(keepends=True)
    assert [number for number, _ in read] == list(range(1, len(read) + 1))


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n", b""])
@pytest.mark.parametrize("size", [MAX_LINE_BYTES - 2, MAX_LINE_BYTES + 1, 3 * MAX_LINE_BYTES])
def test_a_line_that_is_too_long_is_one_line(size, end):
    read = list(read_lines(io.BytesIO(b"a\n" + b"x" * size + end + (b"b" if end else b""))))
    long = None if size > MAX_LINE_BYTES else b"x" * size + end
    assert read == [(1, b"a\n"), (2, long), *([(3, b"b")] if end else [])]
