"""CSV as in RFC 4180: commas, double quotes, a header in the first record."""

import codecs
import csv
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from service.datasets.lines import MAX_LINE_BYTES, TOO_LONG, NumberedRow, read_lines
from service.datasets.problems import Flaw, quoted
from service.datasets.quoting import without_outer_spaces
from service.domain.decoding import is_blank, utf8_remedy
from service.domain.errors import escaped
from service.domain.wording import count

MAX_HEADER_COLUMNS = 10_000
"""Maximum number of columns of a CSV file. Each costs time and memory in every row."""


class _RecordTooLongError(Exception):
    pass


class _Text:
    """Lines for csv.reader, which pulls only those of the current record.

    `invalid` is set if the current record is not UTF-8. Raises _RecordTooLongError.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._lines = read_lines(file)
        self._bytes = 0
        self._is_continued = False
        self.has_quote = False
        self.invalid: Flaw | None = None

    def __iter__(self) -> Iterator[str]:
        for number, raw in self._lines:
            self._bytes += MAX_LINE_BYTES + 1 if raw is None else len(raw)
            if raw is None or self._bytes > MAX_LINE_BYTES:
                raise _RecordTooLongError
            # A record continues on another line only within quotes.
            in_quotes, self._is_continued = self._is_continued, True
            if not in_quotes:
                # Files with byte order marks may have been joined.
                raw = b"\n" if is_blank(raw) else raw.removeprefix(codecs.BOM_UTF8)
            self.has_quote = self.has_quote or b'"' in raw
            try:
                yield without_outer_spaces(raw.decode(), in_quotes=in_quotes)
            except UnicodeDecodeError as error:
                detail = f"is not valid UTF-8 at byte {error.start + 1} of line {number}"
                self.invalid = self.invalid or Flaw("invalid_utf8", detail + utf8_remedy(raw))
                yield raw.decode(errors="replace")

    def next_record(self) -> None:
        self._bytes = 0
        self._is_continued = False
        self.has_quote = False
        self.invalid = None


def read_records(
    file: BinaryIO, *, keep_empty: bool = False
) -> Iterator[tuple[int, list[str] | Flaw]]:
    """Yield each record, the header too, with its first line's number. Stops at a fatal flaw.

    Blank lines are skipped, and records without any value unless `keep_empty`.
    """
    # The limit applies to the whole process; raising it makes nothing else fail.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    text = _Text(file)
    reader = csv.reader(text, strict=True)
    while True:
        number = reader.line_num + 1
        text.next_record()
        try:
            record = next(reader, None)
        except _RecordTooLongError:
            detail = TOO_LONG
            if text.has_quote:
                detail += "; is a quote that opens here never closed?"
            yield number, Flaw("too_long", detail, fatal=True)
            return
        except csv.Error as error:
            yield number, Flaw("invalid_csv", _csv_detail(str(error)), fatal=True)
            return
        if record is None:
            return
        if text.invalid is not None:
            yield number, text.invalid
        elif any(field.strip() for field in record) or (keep_empty and record):
            yield number, record


def _csv_detail(message: str) -> str:
    """Return the detail for a message of csv.Error."""
    if "unexpected end of data" in message:
        reason = "a quote that opens here is never closed"
    elif "expected after" in message:
        reason = "text follows a closing quote; within quotes, write a quote twice"
    elif "new-line" in message:
        reason = "an unquoted field has a line end"
    else:
        reason = message
    return f"is not valid CSV: {reason}"


def read_csv(file: BinaryIO, required: Sequence[str] = ()) -> Iterator[NumberedRow]:
    """Yield each row with its first line's number. The header must have the `required` columns."""
    records = read_records(file)
    header: list[str] | None = None
    for number, record in records:
        if isinstance(record, Flaw):
            fatal = record.fatal or header is None
            yield number, Flaw(record.kind, record.detail, record.path, fatal)
            if fatal:
                return
        elif header is None:
            header = [name.strip() for name in record]
            if flaw := _header_flaw(header, required):
                yield number, flaw
                return
        elif [name.strip() for name in record] == header:
            # Files with headers have been joined.
            yield number, Flaw("repeated_header", "repeats the header; remove the line")
        elif len(record) != len(header):
            detail = f"has {count(len(record), 'field')} where the header has {len(header)}"
            if len(record) > len(header):
                detail += "; a field that holds a comma needs double quotes"
            yield number, Flaw("field_count", detail)
        else:
            yield number, dict(zip(header, record, strict=True))


def _header_flaw(header: list[str], required: Sequence[str]) -> Flaw | None:
    if len(header) > MAX_HEADER_COLUMNS:
        detail = (
            f"the header has {len(header):,} columns, more than {MAX_HEADER_COLUMNS:,}: remove "
            "those that are not needed"
        )
        return Flaw("header", detail, fatal=True)
    names: set[str] = set()
    for name in header:
        if name in names:
            detail = f"the header has the column {quoted(name)} twice"
            return Flaw("header", detail, fatal=True)
        if name:
            names.add(name)
    for column in required:
        if column not in header:
            if header[0].lower().startswith("sep="):
                detail = f"the line {quoted(header[0])} is not the header; remove it"
                return Flaw("header", detail, fatal=True)
            columns = ", ".join(quoted(name) for name in header[:20])
            detail = (
                f"the header has no column {quoted(column)}, only {columns}; "
                f"{_separator_remedy(header)}name another column in mapping"
            )
            return Flaw("missing_column", detail, escaped(column), fatal=True)
    return None


def _separator_remedy(header: list[str]) -> str:
    """Return the advice for a header of one column, which may be several in another notation."""
    if len(header) > 1:
        return ""
    names = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
    for separator, name in names.items():
        if separator in header[0]:
            return f"its columns seem to be separated by {name}: separate them by commas, or "
    return "separate columns by commas, or "
