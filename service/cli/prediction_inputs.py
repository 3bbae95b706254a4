"""Files and arguments with texts or chats to classify, read row by row."""

import json
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from service.datasets.delimited import read_records
from service.datasets.lines import (
    DECODER,
    TOO_LONG,
    Fields,
    decoding_flaw,
    json_type,
    read_lines,
)
from service.datasets.problems import Flaw, bad_character, quoted
from service.domain.decoding import is_blank, open_text, utf8_remedy
from service.domain.json_reasons import json_reason
from service.domain.wording import count

TEXT = "text"
MESSAGES = "messages"
FORMATS = ("text", "csv", "jsonl", "parquet")
_BY_SUFFIX = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_MAX_DECOMPRESSED_BYTES = 1 << 30
# Own columns are written as they were read: 1.0 stays 1.0.
_DECODER = json.JSONDecoder(object_pairs_hook=DECODER.object_pairs_hook)
_SPOOLED_BYTES = 16 << 20


class InvalidInputError(ValueError):
    """The input cannot be read; the message is a predicate or a clause about it."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the input."""

    number: int
    """Line, record or argument, from 1."""
    fields: Fields
    """The row's own columns; a row of a file of lines has one."""
    entry: Any
    """Text or chat to classify; blank or None if the row has none."""

    @property
    def is_blank(self) -> bool:
        return self.entry is None or (isinstance(self.entry, str) and not self.entry.strip())


class Source(ABC):
    """Rows that can be read several times, in order."""

    noun: ClassVar[str] = "line"
    """Name of a row for people."""
    place: ClassVar[str] = "line"
    """Name of what `Row.number` counts."""
    field: ClassVar[str] = "texts"
    """Field of the request."""

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """Yield every row. Raises InvalidInputError, NotTextError."""


class Arguments(Source):
    """Texts of the command line."""

    noun = place = "argument"

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def rows(self) -> Iterator[Row]:
        for number, text in enumerate(self._texts, start=1):
            try:
                text.encode()
            except UnicodeEncodeError:  # the shell's bytes are escaped
                raise InvalidInputError(
                    f"text {number} is not valid UTF-8; write it in UTF-8, or use --file"
                ) from None
            yield Row(number, {TEXT: text}, text)


class _TextFile(Source):
    """A file in any Unicode encoding, perhaps compressed by gzip."""

    def __init__(self, file: BinaryIO, column: str = TEXT) -> None:
        self._file = file
        self._column = column

    def _stream(self) -> BinaryIO:
        return open_text(self._file, max_bytes=_MAX_DECOMPRESSED_BYTES)

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Yield the lines without their ends, and without byte order marks before them."""
        for number, raw in read_lines(self._stream()):
            if raw is None:
                raise InvalidInputError(f"has a line {number} that {TOO_LONG}; split it")
            raw = raw.rstrip(b"\r\n")
            try:
                yield number, raw.decode().removeprefix("\ufeff")
            except UnicodeDecodeError as error:
                detail = f"is not valid UTF-8 at byte {error.start + 1} of line {number}"
                raise InvalidInputError(detail + utf8_remedy(raw)) from None


class Lines(_TextFile):
    """A text on each line."""

    def rows(self) -> Iterator[Row]:
        for number, line in self._lines():
            yield Row(number, {TEXT: line}, line)


class _JsonFile(_TextFile):
    def _values(self) -> Iterator[tuple[int, str, Any]]:
        """Yield each line with its JSON value, which a blank line does not have."""
        for number, line in self._lines():
            if is_blank(line.encode()):
                yield number, line, None
                continue
            try:
                yield number, line, _DECODER.decode(line.strip())
            except json.JSONDecodeError as error:
                reason = f"is not valid JSON at column {error.colno}: {json_reason(error)}"
                raise InvalidInputError(f": line {number} {reason}") from None
            except (ValueError, RecursionError) as error:
                raise InvalidInputError(f": line {number} {decoding_flaw(error).detail}") from None


class Chats(_JsonFile):
    """A chat on each line: the value of the key messages, or a list of turns."""

    field = MESSAGES

    def rows(self) -> Iterator[Row]:
        for number, line, value in self._values():
            if value is None and is_blank(line.encode()):
                yield Row(number, {MESSAGES: line}, line)
                continue
            chat = value.get(MESSAGES) if isinstance(value, dict) else value
            if not isinstance(chat, list):
                raise InvalidInputError(f": line {number} has no list messages")
            yield Row(number, value if isinstance(value, dict) else {MESSAGES: chat}, chat)


class JsonLines(_JsonFile):
    """An object on each line, of which a key holds the text."""

    def rows(self) -> Iterator[Row]:
        for number, line, value in self._values():
            if value is None and is_blank(line.encode()):
                yield Row(number, {self._column: line}, None)
                continue
            if not isinstance(value, dict):
                kind = json_type(value)
                raise InvalidInputError(
                    f": line {number} must be an object, not {kind}; for texts one per line, use "
                    "--format text"
                )
            if self._column not in value:
                chats = "; chats are read by --messages" if MESSAGES in value else ""
                raise InvalidInputError(
                    f": line {number} has no key {quoted(self._column)}, only {_listed(value)}; "
                    f"name another key with --column{chats}"
                )
            entry = _text(value[self._column])
            if isinstance(entry, Flaw):
                detail = f"{quoted(self._column)} {entry.detail}"
                raise InvalidInputError(f": line {number}: {detail}")
            yield Row(number, value, entry)


class Csv(_TextFile):
    """CSV with a header, of which a column holds the text."""

    noun = "row"

    def rows(self) -> Iterator[Row]:
        header: list[str] | None = None
        for number, record in read_records(self._stream(), keep_empty=True):
            if isinstance(record, Flaw):
                raise InvalidInputError(f": line {number} {record.detail}")
            if header is None:
                header = [name.strip() for name in record]
                self._check(header)
            elif len(record) != len(header):
                detail = f"has {count(len(record), 'field')} where the header has {len(header)}"
                if len(record) > len(header):
                    detail += "; a field that holds a comma needs double quotes"
                raise InvalidInputError(f": line {number} {detail}")
            elif len(header) > 1 and [name.strip() for name in record] == header:
                raise InvalidInputError(f": line {number} repeats the header; remove the line")
            else:
                fields = dict(zip(header, record, strict=True))
                yield Row(number, fields, fields[self._column])

    def _check(self, header: list[str]) -> None:
        if self._column not in header:
            raise InvalidInputError(
                f": the header has no column {quoted(self._column)}, only {_listed(header)}; name "
                "another column with --column, and separate columns by commas"
            )
        for name in header:
            if header.count(name) > 1:
                raise InvalidInputError(
                    f": the header has the column {quoted(name)} twice; rename one of them"
                )


class Parquet(Source):
    """A Parquet file, of which a column holds the text."""

    noun = place = "row"

    def __init__(self, file: BinaryIO, column: str, batch_rows: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._column = column
        self._batch_rows = batch_rows
        try:
            self._table = pq.ParquetFile(file)
            self.schema = self._table.schema_arrow
        except pa.ArrowException as error:
            raise InvalidInputError(f"is not a Parquet file ({_first_line(error)})") from None
        names: list[str] = self.schema.names
        if column not in names:
            raise InvalidInputError(
                f"has no column {quoted(column)}, only {_listed(names)}; name another column with "
                "--column"
            )

    def rows(self) -> Iterator[Row]:
        import pyarrow as pa

        number = 0
        try:
            for batch in self._table.iter_batches(batch_size=self._batch_rows):
                for fields in batch.to_pylist():
                    number += 1
                    entry = _text(fields[self._column])
                    if isinstance(entry, Flaw):
                        detail = f"{quoted(self._column)} {entry.detail}"
                        raise InvalidInputError(f": row {number}: {detail}")
                    yield Row(number, fields, entry)
        # ValueError: a value that Python has no type for, such as a time in nanoseconds.
        except (pa.ArrowException, OSError, OverflowError, ValueError) as error:
            if isinstance(error, InvalidInputError):
                raise
            reason = _first_line(error)
            raise InvalidInputError(f"cannot be read after row {number} ({reason})") from None


def _text(value: object) -> str | Flaw | None:
    """Return a value as text; numbers are taken as they are written, null is no text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return None if value != value else str(value)
    return Flaw("wrong_type", f"must be a string, not {json_type(value)}")


def _type(value: object) -> type:
    """Return the type of a value; text for a whole number that no column of numbers holds."""
    return str if isinstance(value, int) and abs(value) >= 2**63 else type(value)


def _bad_character(entry: Any) -> str | None:
    """Return the reason that a text, or a chat, cannot be sent as UTF-8, if any."""
    return bad_character(entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False))


def _listed(names: Iterable[str]) -> str:
    first = list(names)
    more = f" and {len(first) - 20} others" if len(first) > 20 else ""
    return ", ".join(quoted(name) for name in first[:20]) + more


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def format_of(file: Path, name: str | None) -> str:
    """Return the format that the option names, or else the one of the file's suffix."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return name or (_BY_SUFFIX.get(suffixes[-1], "text") if suffixes else "text")


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """Open a file so that it can be read several times; - is standard input. Raises OSError."""
    if str(file) != "-":
        with file.open("rb") as stream:
            if stream.seekable():
                yield stream
                return
            with _spooled(stream) as copy:
                yield copy
    else:
        with _spooled(sys.stdin.buffer) as copy:
            yield copy


@contextmanager
def _spooled(stream: BinaryIO) -> Iterator[BinaryIO]:
    with tempfile.SpooledTemporaryFile(_SPOOLED_BYTES) as copy:
        while block := stream.read(1 << 20):
            copy.write(block)
        copy.seek(0)
        yield copy  # type: ignore[misc]  # a binary file in all but name


def source_of(stream: BinaryIO, kind: str, column: str, batch_rows: int) -> Source:
    """Return the rows of a file with texts. Raises InvalidInputError."""
    if kind == "parquet":
        return Parquet(stream, column, batch_rows)
    kinds: dict[str, type[_TextFile]] = {"text": Lines, "csv": Csv, "jsonl": JsonLines}
    return kinds[kind](stream, column)


@dataclass(slots=True)
class Survey:
    """Figures of the whole input, from a first pass that also finds every error."""

    rows: int = 0
    blank_rows: int = 0
    first_blank: int = 0
    columns: dict[str, set[type]] = field(default_factory=dict)
    """The types of the values of each column, in the order in which the columns appear."""

    @classmethod
    def of(cls, source: Source) -> "Survey":
        """Read the input once. Raises InvalidInputError, NotTextError."""
        survey = cls()
        for row in source.rows():
            survey.rows += 1
            if row.is_blank:
                survey.blank_rows += 1
                survey.first_blank = survey.first_blank or row.number
            elif flaw := _bad_character(row.entry):
                raise InvalidInputError(f": {source.place} {row.number} {flaw}")
            for name, value in row.fields.items():
                survey.columns.setdefault(name, set()).add(_type(value))
        return survey
