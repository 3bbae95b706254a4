"""JSON Lines, and the lines of any text file: one at a time, each of bounded length."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from service.datasets.problems import Flaw, quoted
from service.domain.decoding import is_blank, utf8_remedy
from service.domain.json_reasons import json_reason

MAX_LINE_BYTES = 1_000_000
"""Maximum size of a line, of a CSV record, and of an object in a JSON array."""

TOO_LONG = f"is longer than {MAX_LINE_BYTES:,} bytes"

Fields = dict[str, Any]
NumberedRow = tuple[int, Fields | Flaw]
"""A row's number in its file, and its columns or the reason that it has none."""

_BLOCK_BYTES = 262_144


def read_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line with its number (from 1); None for one that is too long, which is skipped.

    A line ends with LF, CRLF or CR, which it keeps. No more than a block and a line are in memory.
    """
    yield from enumerate(_split(file), start=1)


def _split(file: BinaryIO) -> Iterator[bytes | None]:
    partial, is_skipping = b"", False
    while block := file.read(_BLOCK_BYTES):
        lines = (partial + block).splitlines(keepends=True)
        # The next block may continue the last line, and a CR by an LF.
        partial = b"" if lines[-1].endswith(b"\n") else lines.pop()
        for line in lines:
            yield None if is_skipping or len(line) > MAX_LINE_BYTES else line
            is_skipping = False
        if len(partial) > MAX_LINE_BYTES and not partial.endswith(b"\r"):
            partial, is_skipping = b"", True
    if partial or is_skipping:
        yield None if is_skipping or len(partial) > MAX_LINE_BYTES else partial


class DuplicateKeyError(ValueError):
    """An object repeats a key, so that one of its values would be lost silently."""


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> Fields:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        keys: set[str] = set()
        for key, _ in pairs:
            if key in keys:
                raise DuplicateKeyError(f"has the key {quoted(key)} twice")
            keys.add(key)
    return fields


def _number(text: str) -> int | float:
    """Return a number with a point or an exponent: JSON has one kind, and 1.0 is a whole number."""
    value = float(text)
    return int(value) if value.is_integer() else value


def _row_constant(name: str) -> float | None:
    """Return null for NaN, which data frames write for a missing value although JSON has none."""
    return None if name == "NaN" else float(name)


DECODER = json.JSONDecoder(object_pairs_hook=_reject_duplicate_keys, parse_float=_number)
"""Raises DuplicateKeyError for an object that repeats a key."""

ROW_DECODER = json.JSONDecoder(
    object_pairs_hook=_reject_duplicate_keys, parse_float=_number, parse_constant=_row_constant
)
"""The same for rows of a dataset, where NaN is null."""


def decoding_flaw(error: ValueError | RecursionError) -> Flaw:
    """Return the flaw for an error of DECODER other than JSONDecodeError."""
    if isinstance(error, DuplicateKeyError):
        return Flaw("duplicate_key", str(error))
    if isinstance(error, RecursionError):
        return Flaw("invalid_json", "is nested too deeply")
    return Flaw("invalid_json", "holds a number that is too long")


def as_object(value: object) -> Fields | Flaw:
    """Return `value` if it is a JSON object, otherwise the flaw that says what it is."""
    if isinstance(value, dict):
        return value
    return Flaw("not_an_object", f"must be an object, not {json_type(value)}")


def json_type(value: object) -> str:
    """Return JSON's name for the type of `value`, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a string", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "an object")


def _parse(raw: bytes) -> Fields | Flaw:
    try:
        # Files with byte order marks may have been joined.
        value = ROW_DECODER.decode(raw.decode().strip("\ufeff \t\r\n"))
    except UnicodeDecodeError as error:
        detail = f"is not valid UTF-8 at byte {error.start + 1} of the line"
        return Flaw("invalid_utf8", detail + utf8_remedy(raw))
    except json.JSONDecodeError as error:
        detail = f"is not valid JSON at column {error.colno}: {json_reason(error)}"
        return Flaw("invalid_json", detail + _hint(error))
    except (ValueError, RecursionError) as error:
        return decoding_flaw(error)
    row = as_object(value)
    if isinstance(row, Flaw) and isinstance(value, list):
        return replace(row, detail=f"{row.detail}; for a JSON array of rows, set format to unified")
    return row


def _hint(error: json.JSONDecodeError) -> str:
    """Return what JSON Lines are, for a line that seems to be another notation of objects."""
    if error.doc.strip() in ("{", "["):
        return "; each line must hold one whole object"
    if error.msg == "Extra data" and error.doc[error.pos :].lstrip(", \t").startswith("{"):
        return "; write one object per line, without commas between them"
    return ""


def read_jsonl(file: BinaryIO, _required: Sequence[str] = ()) -> Iterator[NumberedRow]:
    """Yield one object per line; blank lines are skipped. A bad line does not stop the next."""
    for number, raw in read_lines(file):
        if raw is None:
            yield number, Flaw("too_long", TOO_LONG)
        elif not is_blank(raw):
            yield number, _parse(raw)
