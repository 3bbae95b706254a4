"""Reading an upload takes time in proportion to its size, whatever it holds."""

import contextlib
import gzip
import io
import json
from collections.abc import Callable

import pytest

from service.datasets.build import build
from service.datasets.delimited import MAX_HEADER_COLUMNS, read_csv
from service.datasets.mapping import parse_mapping
from service.domain.errors import InvalidRequest
from tests.support.growth import assert_linear

GOOD = b"text,label\na,hate\nb,normal\n"
ROW = b'{"text":"a","label":"hate"}\n'


def _object(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _chat(turns: int, **more: object) -> bytes:
    messages = [{"role": "user", "content": "a"} for _ in range(turns)]
    return _object(messages=[*messages, {"role": "assistant", "content": "b", **more}])


UPLOADS: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "csv rows": (2000, lambda n: GOOD + b"x,hate\n" * n),
    "csv: bad rows": (5000, lambda n: GOOD + b"x\n" * n),
    "csv: blank lines": (20000, lambda n: b"\n" * n + GOOD),
    "csv: bytes that are not UTF-8": (5000, lambda n: GOOD + b"\xff,hate\n" * n),
    "csv: quotes in a field": (50000, lambda n: GOOD + b'"' + b'""' * n + b'",hate\n'),
    "csv: spaces before quotes": (5000, lambda n: GOOD + b"x" + b', "a" ' * n + b"\n"),
    "csv: quotes within unquoted fields": (5000, lambda n: GOOD + b"x" + b', "a" b' * n + b"\n"),
    "csv: quotes after spaces in pairs": (5000, lambda n: GOOD + b' "' + b' ""' * n + b" x\n"),
    "csv: carriage returns": (5000, lambda n: GOOD + b"x,hate\r" * n),
    "UTF-16": (5000, lambda n: (GOOD + b"x,hate\n" * n).decode().encode("utf-16")),
    "gzip": (5000, lambda n: gzip.compress(GOOD + b"x,hate\n" * n)),
    "json lines: exponents": (2000, lambda n: _object(text="a", label=1e300) * n),
    "csv: line ends in a field": (50000, lambda n: GOOD + b'"' + b"\n" * n + b'",hate\n'),
    "csv: a quote never closed": (50000, lambda n: GOOD + b'"' + b"x\n" * n),
    "json lines": (2000, lambda n: ROW * n),
    "json lines: blank": (20000, lambda n: b"\n" * n + ROW),
    "json lines: columns of one row": (5000, lambda n: _object(**{f"c{i}": 1 for i in range(n)})),
    "json lines: a repeated column": (20000, lambda n: b"{" + b'"a":1,' * n + b'"a":1}\n'),
    "json lines: new columns in each row": (
        2000,
        lambda n: b"".join(_object(text="a", label="hate", **{f"c{i}": 1}) for i in range(n)),
    ),
    "json lines: digits of a number": (
        100000,
        lambda n: b'{"text":"a","label":0.' + b"1" * n + b"}\n",
    ),
    "json lines: nesting": (50000, lambda n: b'{"text":' + b"[" * n + b"}\n"),
    "json lines: a label": (100000, lambda n: _object(text="a", label="x" * n)),
    "json lines: groups": (
        2000,
        lambda n: b"".join(_object(text="a", label="hate", group=str(i)) for i in range(n)),
    ),
    "json lines: one id": (2000, lambda n: _object(text="a", label="hate", id="1") * n),
    "chats: turns": (2000, lambda n: _chat(n)),
    "chats: keys of a turn": (5000, lambda n: _chat(1, **{f"k{i}": None for i in range(n)})),
    "chats: different answers": (
        1000,
        lambda n: b"".join(_chat(1, content=str(i)) for i in range(n)),
    ),
    "array": (5000, lambda n: b"[" + b'{"text":"a","label_binary":"hate"},' * n + b"{}]"),
    "array: white space": (200000, lambda n: b"[" + b" \n" * n + b"{}]"),
    "array: an object that never ends": (100000, lambda n: b'[{"text":"' + b"a" * n),
}


@pytest.mark.parametrize("kind", UPLOADS)
def test_an_upload_is_read_in_linear_time(kind, tmp_path):
    n, make = UPLOADS[kind]

    def read(content: bytes) -> None:
        with contextlib.suppress(InvalidRequest):
            build({"train": io.BytesIO(content)}, tmp_path)

    assert_linear(read, make, n)


@pytest.mark.parametrize("name", ["c{}", "c", "{}" * 20])
def test_a_header_is_checked_in_linear_time(name, monkeypatch):
    monkeypatch.setattr("service.datasets.delimited.MAX_HEADER_COLUMNS", 1_000_000)

    def header(n: int) -> bytes:
        return ",".join(["text", *(name.format(*[i] * 20) for i in range(n))]).encode() + b"\n"

    assert_linear(lambda content: list(read_csv(io.BytesIO(content), ["text"])), header, 4000)


def test_a_header_has_a_limited_number_of_columns(make, refuse):
    names = ["text", "label", *(f"c{i}" for i in range(MAX_HEADER_COLUMNS - 2))]
    rows = [["a", "hate"], ["b", "normal"]]
    cells = [",".join([*row, *[""] * (len(names) - 2)]) for row in rows]
    assert make({"train": "\n".join([",".join(names), *cells])}).stats.rows == 2

    error = refuse({"train": "\n".join([",".join([*names, "c"]), *cells])})
    assert error.errors[0].pointer == "/train/lines/1"
    assert f"{MAX_HEADER_COLUMNS:,}" in error.detail
    assert "columns" in error.detail


MAPPINGS: dict[str, Callable[[int], str]] = {
    "labels": lambda n: json.dumps({"labels": [f"l{i}" for i in range(n)]}),
    "values of labels": lambda n: json.dumps({"labels": {f"l{i}": "a" for i in range(n)}}),
    "unknown options": lambda n: json.dumps({f"l{i}": 1 for i in range(n)}),
    "nesting": lambda n: '{"labels":' + "[" * n,
}


@pytest.mark.parametrize("kind", MAPPINGS)
def test_a_mapping_is_read_in_linear_time(kind):
    def read(text: str) -> None:
        with contextlib.suppress(InvalidRequest):
            parse_mapping(text)

    assert_linear(read, MAPPINGS[kind], 5000)
