"""Which reader a file needs, by its name or by what it holds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal

from service.datasets.arrays import read_array
from service.datasets.delimited import read_csv
from service.datasets.lines import Fields, Found, read_jsonl
from service.datasets.mapping import Mapping
from service.datasets.rows import Kind

Format = Literal["auto", "jsonl", "messages", "csv", "unified"]
"""jsonl: objects with a text. messages: objects with a chat. unified: a JSON array of objects.

auto goes by content: an array is unified; objects are messages when the first has that key, else
jsonl; anything else is CSV. An array whose first object lacks ``label_binary`` has the default
column names under auto, and the unified JSON's own names under unified.
"""

_PEEK_BYTES = 65536
_SPACE = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Source:
    """A file's rows. `unit` is ``lines`` (numbered from 1) or ``items`` (from 0)."""

    unit: Literal["lines", "items"]
    found: Iterator[Found]


def open_source(file: BinaryIO, file_format: Format, needed: Sequence[str]) -> Source:
    """Read `file` from its start, row by row. Only a CSV is held to the columns in `needed`."""
    shape = {"jsonl": "objects", "messages": "objects", "csv": "csv", "unified": "array"}
    chosen = _shape(file) if file_format == "auto" else shape[file_format]
    file.seek(0)
    if chosen == "array":
        return Source("items", read_array(file))
    if chosen == "objects":
        return Source("lines", read_jsonl(file))
    return Source("lines", read_csv(file, needed))


def _shape(file: BinaryIO) -> str:
    """What the first character that is not white space or a byte order mark says."""
    file.seek(0)
    chunk = file.read(_PEEK_BYTES).removeprefix(b"\xef\xbb\xbf")
    while chunk:
        if start := chunk.lstrip(_SPACE):
            return {b"[": "array", b"{": "objects"}.get(start[:1], "csv")
        chunk = file.read(_PEEK_BYTES)
    return "objects"


def kind_of(first: Fields, file_format: Format) -> Kind:
    """Whether a file whose first readable row is `first` holds chats or texts."""
    if file_format == "messages" or (file_format == "auto" and "messages" in first):
        return "messages"
    return "text"


def columns_of(first: Fields, file_format: Format, unit: str, mapping: Mapping) -> Mapping:
    """The mapping with the defaults of the file's format."""
    if file_format == "unified" or (
        file_format == "auto" and unit == "items" and "label_binary" in first
    ):
        return mapping.for_unified()
    return mapping
