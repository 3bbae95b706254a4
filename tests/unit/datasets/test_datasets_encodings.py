"""The same rows in every encoding, compression and line end are the same dataset."""

import gzip
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.datasets.lines import MAX_LINE_BYTES, read_lines
from service.datasets.mapping import Mapping
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
        "is not valid UTF-8 at byte 5 of line 2 (it may be in Windows-1252 or another "
        "encoding); save it as UTF-8"
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


JOINED = "text,label\na,hate\n\ufeffb,normal\n"


def test_a_mark_before_a_row_of_csv_is_no_part_of_its_text(make):
    assert [row.text for row in read_rows(make({"train": JOINED}).path)] == ["a", "b"]
    quoted = JOINED.replace("b,", '"b, c",')
    assert [row.text for row in read_rows(make({"train": quoted}).path)] == ["a", "b, c"]


def test_a_mark_within_quotes_belongs_to_the_text(make):
    built = make({"train": 'text,label\n"a\n\ufeffb",hate\nc,normal\n'})
    assert next(iter(read_rows(built.path))).text == "a\n\ufeffb"


@pytest.mark.parametrize("text", [CSV, JSONL, ARRAY], ids=["csv", "jsonl", "array"])
@pytest.mark.parametrize("end", ["\ufeff", "\ufeff\n", "\n\ufeff \n"])
def test_a_joined_empty_file_adds_no_row(text, end, make):
    assert make({"train": text + end}).content_hash == make({"train": text}).content_hash


@pytest.mark.parametrize("text", [CSV, JSONL], ids=["csv", "jsonl"])
def test_the_mark_that_ends_files_of_dos_is_no_row(text, make):
    assert make({"train": text + "\x1a"}).content_hash == make({"train": text}).content_hash


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_repeated_header_is_named(mark, problems):
    content = f"text,label\na,hate\n{mark}text,label\nb,normal\n"
    assert problems({"train": content})["/train/lines/3"] == ("repeats the header; remove the line")


@pytest.mark.parametrize(
    "header", ["\u672c\u6587,\u30e9\u30d9\u30eb", "\u0442\u0435\u043a\u0441\u0442,\u043c"]
)
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_may_begin_with_any_letters(header, encoding, make):
    text, label = header.split(",")
    content = f"{header}\n\u3053\u3093\u3000\u042f,hate\n\u3055,normal\n"
    mapping = Mapping(text=text, label=label)
    built = make({"train": content.encode(encoding)}, mapping=mapping)
    assert built.content_hash == make({"train": content}, mapping=mapping).content_hash


def test_an_array_that_is_not_utf_8_names_the_cause(problems):
    content = '[{"text": "caf\u00e9", "label": "hate"}]'.encode("cp1252")
    assert problems({"train": content})["/train/items/0"] == (
        "is not valid UTF-8 (line 1, column 15 of the file) (it may be in Windows-1252 or another "
        "encoding); save it as UTF-8"
    )


def test_surrogates_in_utf_8_are_not_taken_for_windows_1252(problems):
    content = 'text,label\n"\ud83d\ude00",hate\n'.encode("utf-8", "surrogatepass")
    assert "CESU-8" in problems({"train": content})["/train/lines/2"]


PAGES = {
    "<!-- saved -->\n<HTML><body>": "an HTML page",
    "<head><title>404</title></head>": "an HTML page",
    "<h1>404 Not Found</h1>": "an HTML page",
    "<Error><Code>AccessDenied</Code></Error>": "an XML file",
    "<rss version='2'>\n <channel/></rss>": "an XML file",
    "version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "a Git LFS pointer",
}


@pytest.mark.parametrize("text", PAGES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_page_instead_of_rows_is_named(text, encoding, problems):
    assert problems({"train": text.encode(encoding)})["/train"].startswith(f"is {PAGES[text]}")


def test_bytes_after_a_gzip_file_are_named(problems):
    detail = problems({"train": gzip.compress(CSV.encode()) + b"junk"})["/train"]
    assert detail == "is a damaged gzip file (other bytes follow its end); compress it again"
    detail = problems({"train": gzip.compress(CSV.encode())[:-12]})["/train"]
    assert detail == "is a damaged gzip file (it ends too early); compress it again"


def test_a_long_record_without_a_quote_is_not_asked_for_one(problems):
    long = "a" * (MAX_LINE_BYTES + 1)
    assert problems({"train": f"text,label\n{long},hate\n"})["/train/lines/2"] == (
        "is longer than 1,000,000 bytes"
    )
    half = "a\n" * (MAX_LINE_BYTES // 2)
    assert problems({"train": f'text,label\n"{half},hate\n'})["/train/lines/2"].endswith(
        "is a quote that opens here never closed?"
    )


JSON_LINES = {
    '{"text": "a", "label": "hate"},': "remove the comma",
    '{"text": "a", "label": "hate"} {"text": "b", "label": "normal"}': "one object per line",
    '[{"text": "a"}]': "for a JSON array of rows, set format to unified",
}


@pytest.mark.parametrize("line", JSON_LINES)
def test_another_notation_of_rows_is_named(line, problems):
    errors = problems({"train": line + "\n" + JSONL}, file_format="jsonl")
    assert JSON_LINES[line] in errors["/train/lines/1"]


def test_an_array_of_arrays_is_not_told_to_be_an_array(problems):
    errors = problems({"train": '[["a", "hate"]]'})
    assert errors["/train/items/0"] == "must be an object, not a list"


@pytest.mark.parametrize("value", ['""', '"  "', "null"])
def test_a_blank_split_is_empty(value, problems):
    content = JSONL.replace("}", ', "split": "train"}') + (
        f'{{"text": "c", "label": "hate", "split": {value}}}\n'
    )
    assert "the column 'split' is empty" in problems({"file": content})["/file/lines/3/split"]


@pytest.mark.parametrize("labels", [[0, 1], {"1": 1, "0": 0}, ["0", "1"]])
def test_labels_of_a_mapping_may_be_whole_numbers(labels, make):
    built = make({"train": "text,label\na,1\nb,0.0\n"}, mapping=Mapping(labels=labels))
    assert built.stats.labels == {"0": 1, "1": 1}


@pytest.mark.parametrize("labels", [[True, False], {"true": True, "false": False}])
def test_labels_of_a_mapping_may_be_truth_values(labels, make):
    content = '{"text": "a", "label": true}\n{"text": "b", "label": "False"}\n'
    built = make({"train": content}, mapping=Mapping(labels=labels))
    assert built.stats.labels == {"false": 1, "true": 1}
