"""CSV as in RFC 4180: commas, double quotes, a header in the first record."""

import csv
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from service.datasets.lines import MAX_LINE_BYTES, TOO_LONG, Found, read_lines
from service.datasets.problems import Flaw, shown
from service.domain.errors import escaped


class _RecordTooLongError(Exception):
    pass


class _Text:
    """Lines for csv.reader, which pulls only those of the record at hand.

    `invalid` is where the record at hand is not UTF-8. Raises _RecordTooLongError.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._lines = read_lines(file)
        self._bytes = 0
        self.invalid: Flaw | None = None

    def __iter__(self) -> Iterator[str]:
        for number, raw in self._lines:
            self._bytes += MAX_LINE_BYTES + 1 if raw is None else len(raw)
            if raw is None or self._bytes > MAX_LINE_BYTES:
                raise _RecordTooLongError
            try:
                yield raw.decode()
            except UnicodeDecodeError as error:
                detail = f"is not valid UTF-8 at byte {error.start + 1} of line {number}"
                self.invalid = self.invalid or Flaw("invalid_utf8", detail)
                yield raw.decode(errors="replace")

    def next_record(self) -> None:
        self._bytes = 0
        self.invalid = None


def _records(file: BinaryIO) -> Iterator[tuple[int, list[str] | Flaw]]:
    """Each record that is not blank, with the number of its first line. Ends at a fatal flaw."""
    # The limit is the process's; raising it makes nothing else fail.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    text = _Text(file)
    reader = csv.reader(text, strict=True)
    while True:
        number = reader.line_num + 1
        text.next_record()
        try:
            record = next(reader, None)
        except _RecordTooLongError:
            detail = f"{TOO_LONG}; is a quote that opens here never closed?"
            yield number, Flaw("too_long", detail, fatal=True)
            return
        except csv.Error as error:
            yield number, Flaw("invalid_csv", f"is not valid CSV: {error}", fatal=True)
            return
        if record is None:
            return
        if text.invalid is not None:
            yield number, text.invalid
        elif any(field.strip() for field in record):
            yield number, record


def read_csv(file: BinaryIO, needed: Sequence[str]) -> Iterator[Found]:
    """A row's number is its record's first line. Columns in `needed` must be in the header."""
    records = _records(file)
    header: list[str] | None = None
    for number, record in records:
        if isinstance(record, Flaw):
            fatal = record.fatal or header is None
            yield number, Flaw(record.kind, record.detail, record.path, fatal)
            if fatal:
                return
        elif header is None:
            header = [name.strip() for name in record]
            if flaw := _header_flaw(header, needed):
                yield number, flaw
                return
        elif len(record) != len(header):
            detail = f"has {len(record)} fields where the header has {len(header)}"
            yield number, Flaw("field_count", detail)
        else:
            yield number, dict(zip(header, record, strict=True))


def _header_flaw(header: list[str], needed: Sequence[str]) -> Flaw | None:
    names = [name for name in header if name]
    if twice := [name for name in names if names.count(name) > 1]:
        detail = f"the header names the column {shown(twice[0])} twice"
        return Flaw("header", detail, fatal=True)
    for column in needed:
        if column not in header:
            found = ", ".join(shown(name) for name in header[:20])
            detail = (
                f"the header has no column {shown(column)}, only {found}; columns are separated "
                "by commas, and another name can be given in mapping"
            )
            return Flaw("missing_column", detail, escaped(column), fatal=True)
    return None
