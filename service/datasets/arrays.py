"""A JSON array of objects, read one object at a time (ADR 20 says why not with ijson)."""

import codecs
import json
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from service.datasets.lines import (
    MAX_LINE_BYTES,
    ROW_DECODER,
    TOO_LONG,
    NumberedRow,
    as_object,
    decoding_flaw,
)
from service.datasets.problems import Flaw
from service.domain.decoding import utf8_remedy
from service.domain.json_reasons import LAST_COMMA, json_reason

_CHUNK_BYTES = 262_144
# Files with byte order marks may have been joined.
_SPACE = " \t\r\n\ufeff"


class _SyntaxError(Exception):
    """The array cannot be read further; `detail` gives the reason, with line and column."""

    def __init__(self, detail: str, kind: str = "invalid_json") -> None:
        super().__init__(detail)
        self.detail = detail
        self.kind = kind


class _Window:
    """A sliding window over the file: `text` from `position` on is not yet consumed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._line = 1
        self._column = 1
        self._ended = False
        self._remedy = ""
        self.text = ""
        self.position = 0

    def read_more(self) -> bool:
        """Drop the consumed text and read the next chunk; return False at the end of the file."""
        if self._remedy:
            raise self.error("is not valid UTF-8", len(self.text), "invalid_utf8", self._remedy)
        if self._ended:
            return False
        raw = self._file.read(_CHUNK_BYTES)
        self._ended = not raw
        self._line, self._column = self._line_and_column(self.position)
        self.text = self.text[self.position :]
        self.position = 0
        try:
            self.text += self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            # The text before the bad byte is read first, so that the error names its item.
            self.text += error.object[: error.start].decode("utf-8-sig")
            self._remedy = utf8_remedy(error.object[error.start :].partition(b"\n")[0])
            return True
        return bool(raw)

    def peek(self) -> str:
        """Return the next character that is not white space; empty at the end of the file."""
        while True:
            while self.position < len(self.text):
                if self.text[self.position] not in _SPACE:
                    return self.text[self.position]
                self.position += 1
            if not self.read_more():
                return ""

    def value(self) -> object:
        """Consume one JSON value, of a bounded size. Raises ValueError, RecursionError."""
        while True:
            try:
                value, end = ROW_DECODER.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                failure = self.error(f"is not valid JSON: {json_reason(error)}", error.pos)
                if _is_certain(error):
                    raise failure from error
                if len(self.text) - self.position > MAX_LINE_BYTES:
                    raise self.error(TOO_LONG, self.position, "too_long") from error
                if not self.read_more():
                    raise failure from error
            else:
                size = end - self.position
                if size > MAX_LINE_BYTES:
                    raise self.error(TOO_LONG, self.position, "too_long")
                # The next chunk could continue a number.
                if end < len(self.text) or not self.read_more():
                    self.position += size
                    return value

    def _line_and_column(self, position: int) -> tuple[int, int]:
        newlines = self.text.count("\n", 0, position)
        if not newlines:
            return self._line, self._column + position
        return self._line + newlines, position - self.text.rfind("\n", 0, position)

    def error(
        self, detail: str, position: int, kind: str = "invalid_json", remedy: str = ""
    ) -> _SyntaxError:
        line, column = self._line_and_column(position)
        where = f"(line {line}, column {column} of the file)"
        return _SyntaxError(f"{detail} {where}{remedy}", kind)


def _is_certain(error: json.JSONDecodeError) -> bool:
    """Return True if no further text could cure the error: it is not at the end of the text."""
    return not error.msg.startswith("Unterminated") and error.pos + 16 < len(error.doc)


def read_array(file: BinaryIO, _required: Sequence[str] = ()) -> Iterator[NumberedRow]:
    """Yield each item with its index, from 0, as in a JSON pointer. Stops at a fatal flaw."""
    window = _Window(file)
    index = 0
    try:
        opening = window.peek()
        if opening != "[":
            if opening:
                raise window.error("is not a JSON array", window.position)
            return
        window.position += 1
        if window.peek() == "]":
            window.position += 1
        else:
            while True:
                if window.peek() == "]":
                    raise window.error(f"is not valid JSON: {LAST_COMMA}", window.position)
                yield index, _item(window)
                separator = window.peek()
                if separator not in (",", "]"):
                    raise window.error(
                        "must be followed by a comma or the end of the array", window.position
                    )
                window.position += 1
                if separator == "]":
                    break
                index += 1
        if window.peek():
            raise window.error("is the last item, but more text follows the array", window.position)
    except _SyntaxError as error:
        yield index, Flaw(error.kind, error.detail, fatal=True)


def _item(window: _Window) -> dict[str, object] | Flaw:
    try:
        return as_object(window.value())
    except (ValueError, RecursionError) as error:
        flaw = decoding_flaw(error)
        raise _SyntaxError(flaw.detail, flaw.kind) from error
