"""A JSON array of objects, read one object at a time."""

import codecs
import json
from collections.abc import Iterator
from typing import BinaryIO

from service.datasets.lines import DECODER, MAX_LINE_BYTES, TOO_LONG, Found, as_object, value_flaw
from service.datasets.problems import Flaw

_CHUNK_BYTES = 262_144
_SPACE = " \t\r\n"


class _SyntaxError(Exception):
    """The array cannot be read on; `detail` says why, with line and column."""

    def __init__(self, detail: str, kind: str = "invalid_json") -> None:
        super().__init__(detail)
        self.detail = detail
        self.kind = kind


class _Window:
    """The part of the file being looked at: `text` from `at` on is not yet consumed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._line = 1
        self._column = 1
        self._ended = False
        self._broken = False
        self.text = ""
        self.at = 0

    def more(self) -> bool:
        """Forget what was consumed and read on; False at the end of the file."""
        if self._broken:
            raise self.error("is not valid UTF-8", len(self.text), "invalid_utf8")
        if self._ended:
            return False
        raw = self._file.read(_CHUNK_BYTES)
        self._ended = not raw
        self._line, self._column = self._position(self.at)
        self.text = self.text[self.at :]
        self.at = 0
        try:
            self.text += self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            # What stands before the bad byte is read first, so that the error names its item.
            self.text += error.object[: error.start].decode("utf-8-sig")
            self._broken = True
            return True
        return bool(raw)

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in _SPACE:
                    return self.text[self.at]
                self.at += 1
            if not self.more():
                return ""

    def value(self) -> object:
        """Consume one JSON value, of a bounded size. Raises ValueError, RecursionError."""
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                failure = self.error(f"is not valid JSON: {error.msg}", error.pos)
                if _is_certain(error):
                    raise failure from error
                if len(self.text) - self.at > MAX_LINE_BYTES:
                    raise self.error(TOO_LONG, self.at, "too_long") from error
                if not self.more():
                    raise failure from error
            else:
                size = end - self.at
                if size > MAX_LINE_BYTES:
                    raise self.error(TOO_LONG, self.at, "too_long")
                # A number could go on in what was not yet read.
                if end < len(self.text) or not self.more():
                    self.at += size
                    return value

    def _position(self, at: int) -> tuple[int, int]:
        newlines = self.text.count("\n", 0, at)
        if not newlines:
            return self._line, self._column + at
        return self._line + newlines, at - self.text.rfind("\n", 0, at)

    def error(self, what: str, at: int, kind: str = "invalid_json") -> _SyntaxError:
        line, column = self._position(at)
        return _SyntaxError(f"{what} (line {line}, column {column} of the file)", kind)


def _is_certain(error: json.JSONDecodeError) -> bool:
    """Whether more text could not mend it: it lies before the end, and in no open string."""
    return not error.msg.startswith("Unterminated") and error.pos + 16 < len(error.doc)


def read_array(file: BinaryIO) -> Iterator[Found]:
    """A row's number is its index, from 0, as in a JSON pointer. Ends at a fatal flaw."""
    window = _Window(file)
    index = 0
    try:
        opening = window.peek()
        if opening != "[":
            if opening:
                raise window.error("is not a JSON array", window.at)
            return
        window.at += 1
        if window.peek() == "]":
            window.at += 1
        else:
            while True:
                window.peek()
                yield index, _item(window)
                separator = window.peek()
                if separator not in (",", "]"):
                    raise window.error("must be followed by a comma or the array's end", window.at)
                window.at += 1
                if separator == "]":
                    break
                index += 1
        if window.peek():
            raise window.error("is the last item, yet more follows", window.at)
    except _SyntaxError as error:
        yield index, Flaw(error.kind, error.detail, fatal=True)


def _item(window: _Window) -> dict[str, object] | Flaw:
    try:
        return as_object(window.value())
    except (ValueError, RecursionError) as error:
        flaw = value_flaw(error)
        raise _SyntaxError(flaw.detail, flaw.kind) from error
