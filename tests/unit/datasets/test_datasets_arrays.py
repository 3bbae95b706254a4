"""JSON arrays: read object by object across the borders of the window, and where they break."""

import io
import json

import pytest

from service.datasets import arrays
from service.datasets.arrays import read_array
from service.datasets.lines import MAX_LINE_BYTES
from service.datasets.problems import Flaw

ROWS = [{"text": 'né 😀 \\ " ] } ,', "n": n, "x": [1, {"y": None}]} for n in range(50)]


def read(content):
    return list(read_array(io.BytesIO(content if isinstance(content, bytes) else content.encode())))


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1000, 262_144])
@pytest.mark.parametrize("indent", [None, 2])
def test_any_window_gives_the_same_rows(chunk, indent, monkeypatch):
    monkeypatch.setattr(arrays, "_CHUNK_BYTES", chunk)
    for ascii_only in (True, False):
        text = json.dumps(ROWS, indent=indent, ensure_ascii=ascii_only)
        assert read("\ufeff \n" + text + "\n ") == list(enumerate(ROWS))


@pytest.mark.parametrize("chunk", [1, 5, 262_144])
@pytest.mark.parametrize(
    ("text", "index", "detail"),
    [
        ("[", 0, "is not valid JSON: a value is missing at the end (line 1, column 2 of the file)"),
        (
            "[{}",
            0,
            "must be followed by a comma or the end of the array (line 1, column 4 of the file)",
        ),
        ("[{}\n{}]", 0, "must be followed by a comma or the end of the array (line 2, column 1 of"),
        ("[{},]", 1, "before the bracket that closes the list; remove the comma (line 1, column 5"),
        (
            "[{}] x",
            0,
            "is the last item, but more text follows the array (line 1, column 6 of the file)",
        ),
        (
            '[{},\n {"a": }]',
            1,
            "is not valid JSON: a value is expected (line 2, column 8 of the file)",
        ),
        ('[{"a": "b]', 0, "a string is never closed (line 1, column 8 of the file)"),
        ('[{"a": 1, "a": 2}]', 0, "has the key 'a' twice"),
        (b'[{},\n{"a": "\xff"}]', 1, "is not valid UTF-8 (line 2, column 8 of the file)"),
        (b'[{"a": "\xe2\x82', 0, "is not valid UTF-8 (line 1, column 9 of the file)"),
        ("{}", 0, "is not a JSON array (line 1, column 1 of the file)"),
    ],
)
def test_a_broken_array_ends_with_a_fatal_flaw(text, index, detail, chunk, monkeypatch):
    monkeypatch.setattr(arrays, "_CHUNK_BYTES", chunk)
    number, flaw = read(text)[-1]
    assert isinstance(flaw, Flaw)
    assert (number, flaw.fatal) == (index, True)
    assert detail in flaw.detail


def test_an_error_far_from_the_end_is_found_without_reading_on():
    class Counted(io.BytesIO):
        chunks = 0

        def read(self, size=-1):
            self.chunks += 1
            return super().read(size)

    file = Counted(b'[{"a" 1},' + b'{"a": 1},' * 1_000_000)
    assert "column 7 of the file" in list(read_array(file))[-1][1].detail
    assert file.chunks == 1


def test_an_item_that_is_too_long():
    long = '{"a": "' + "x" * (2 * MAX_LINE_BYTES) + '"}'
    number, flaw = read(f"[{{}},\n{long}, {{}}]")[-1]
    assert (number, flaw.kind, flaw.fatal) == (1, "too_long", True)
    assert "1,000,000 bytes (line 2, column 1 of the file)" in flaw.detail


def test_items_that_are_no_objects_do_not_stop_the_rest():
    (_, number), (_, row) = read("[1, {}]")
    assert number.detail == "must be an object, not a number"
    assert row == {}


def test_deep_nesting():
    _, flaw = read("[" * 300_000)[-1]
    assert (flaw.detail, flaw.fatal) == ("is nested too deeply", True)
