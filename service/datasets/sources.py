"""An uploaded file as a source of rows: its format is stated by the upload, or detected."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from service.datasets import formats
from service.datasets.formats import AUTO, DatasetFormat, format_named
from service.datasets.lines import Fields, NumberedRow
from service.datasets.mapping import Mapping
from service.datasets.rows import Kind
from service.domain.content_kinds import HEAD_BYTES, page_kind
from service.domain.decoding import NotTextError, open_text

_SPACE = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Source:
    """The rows of a file, and the formats that it can have: one, unless it is detected."""

    unit: str
    rows: Iterator[NumberedRow]
    _formats: tuple[DatasetFormat, ...]
    _detect: bool

    def layout(self, first: Fields, mapping: Mapping) -> tuple[Kind, Mapping]:
        """Return the kind of the rows and the mapping with the format's defaults.

        A stated format decides both. Otherwise the first format that matches the `first` row
        gives the defaults, and rows with the key ``messages`` are chats. Raises InvalidRequest
        for a mapping option that the detected format does not take.
        """
        if not self._detect:
            (stated,) = self._formats
            return stated.kind, mapping.with_defaults(stated.columns)
        kind: Kind = "messages" if "messages" in first else "text"
        detected = next((entry for entry in self._formats if entry.matches(first)), None)
        if detected is None:
            return kind, mapping
        detected.check_options(mapping)
        return kind, mapping.with_defaults(detected.columns)


def open_source(
    file: BinaryIO, format_name: str, mapping: Mapping, *, split: bool, max_bytes: int
) -> Source:
    """Read `file` from its start, row by row; a gzip file up to `max_bytes` of its content.

    A header must have the columns of the text, of the split if `split`, and those that the mapping
    sets. Raises InvalidRequest for a mapping option that the stated format does not take, and
    NotTextError, as reading the rows does.
    """
    detect = format_name == AUTO
    if markup := page_kind(open_text(file, max_bytes=max_bytes).read(HEAD_BYTES)):
        raise NotTextError(str(markup))
    if detect:
        head = _head(open_text(file, max_bytes=max_bytes))
        candidates = tuple(entry for entry in formats.FORMATS if entry.recognises(head))
        reading = candidates[0]
        candidates = tuple(entry for entry in candidates if entry.read is reading.read)
    else:
        reading = format_named(format_name)
        candidates = (reading,)
        reading.check_options(mapping)
    columns = mapping.with_defaults(reading.columns)
    required = [columns.text, *mapping.columns_set().values()]
    if split:
        required.append(columns.split)
    text = open_text(file, max_bytes=max_bytes)
    rows = reading.read(text, list(dict.fromkeys(required)))
    return Source(reading.unit, rows, candidates, detect)


def _head(text: BinaryIO) -> bytes:
    """Return the beginning of a text after white space."""
    while chunk := text.read(HEAD_BYTES):
        if head := chunk.lstrip(_SPACE):
            return head + text.read(HEAD_BYTES)
    return b""
