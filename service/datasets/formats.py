"""The registry of dataset formats. A new format needs an entry in FORMATS and its reader."""

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, field
from typing import Annotated, BinaryIO

from pydantic import GetPydanticSchema
from pydantic_core import core_schema

from service.datasets.arrays import read_array
from service.datasets.delimited import read_csv
from service.datasets.lines import Fields, NumberedRow, read_jsonl
from service.datasets.mapping import OPTIONS, Mapping
from service.datasets.rows import Kind
from service.domain.errors import FieldError, InvalidRequest

AUTO = "auto"

Reader = Callable[[BinaryIO, Sequence[str]], Iterator[NumberedRow]]
"""Called with the file and the columns that its header, if it has one, must name."""


def _any_row(_row: Fields) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFormat:
    """One format of uploaded files."""

    name: str
    """The value of the form field `format`."""
    description: str
    """For the OpenAPI document: a phrase without a full stop."""
    read: Reader
    unit: str
    """The name for row numbers in error pointers, such as `lines` in ``/train/lines/17``."""
    recognises: Callable[[bytes], bool]
    """True if a file with this beginning (no white space, no byte order mark) can be read."""
    matches: Callable[[Fields], bool] = _any_row
    """True if a file whose first row is this one has the format; see `sources.Source.layout`."""
    kind: Kind = "text"
    columns: AnyMapping[str, str] = field(default_factory=dict)
    """Mapping option -> its default in this format, if it differs from the mapping's own."""
    options: frozenset[str] = OPTIONS
    """The mapping options that an upload may set."""

    def check_options(self, mapping: Mapping) -> None:
        """Raise InvalidRequest, which names every option that the format does not take."""
        refused = sorted(mapping.model_fields_set - self.options)
        if not refused:
            return
        remedy = f"it takes {', '.join(sorted(self.options))}" if self.options else "it takes none"
        errors = tuple(
            FieldError(
                f"/mapping/{option}",
                f"the format {self.name} does not take mapping.{option}; {remedy}",
            )
            for option in refused
        )
        raise InvalidRequest(f"{errors[0].pointer}: {errors[0].detail}", errors)


FORMATS: tuple[DatasetFormat, ...] = (
    DatasetFormat(
        name="jsonl",
        description="JSON Lines, one object with a text per line",
        read=read_jsonl,
        unit="lines",
        recognises=lambda head: head.startswith(b"{"),
        matches=lambda row: "messages" not in row,
    ),
    DatasetFormat(
        name="messages",
        description="JSON Lines, one object with a chat in messages per line",
        read=read_jsonl,
        unit="lines",
        recognises=lambda head: head.startswith(b"{"),
        matches=lambda row: "messages" in row,
        kind="messages",
    ),
    DatasetFormat(
        name="csv",
        description="CSV as in RFC 4180, with a header",
        read=read_csv,
        unit="lines",
        recognises=lambda head: not head.startswith((b"{", b"[")),
    ),
    DatasetFormat(
        name="unified",
        description="a JSON array of objects with, by default, the columns text, label_binary, "
        "target_group_norm, source_dataset, label_multiclass, rationale_text, original_id, split",
        read=read_array,
        unit="items",
        recognises=lambda head: head.startswith(b"["),
        matches=lambda row: "label_binary" in row,
        columns={
            "label": "label_binary",
            "group": "target_group_norm",
            "source": "source_dataset",
            "detail": "label_multiclass",
            "rationale": "rationale_text",
            "id": "original_id",
        },
    ),
)
"""In the order of the API's enumeration. Under auto, the first that recognises a file reads it:
a format whose files are CSV, too, comes before csv."""


def format_names() -> list[str]:
    """Return the values of the form field `format`."""
    return [AUTO, *(entry.name for entry in FORMATS)]


FormatName = Annotated[
    str,
    GetPydanticSchema(lambda _source, _handler: core_schema.literal_schema(format_names())),
]
"""Validated, and listed in the OpenAPI document, as one of `format_names`."""


def describe_formats() -> str:
    """Return the description of the form field `format`."""
    entries = "; ".join(f"{entry.name}: {entry.description}" for entry in FORMATS)
    return f"The format of the files. {AUTO}: detected from their content; {entries}."


def format_named(name: str) -> DatasetFormat:
    return next(entry for entry in FORMATS if entry.name == name)
