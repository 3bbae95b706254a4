"""The column names and labels of an uploaded file."""

import json
from collections.abc import Mapping as AnyMapping
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)
from pydantic_core import PydanticCustomError

from service.datasets.lines import DECODER, decoding_flaw
from service.domain.errors import FieldError, InvalidRequest
from service.domain.json_reasons import json_reason
from service.domain.storable import UNSTORABLE
from service.domain.validation import UNKNOWN_FIELD, invalid, invalid_request

MAX_NAME = 200
"""Maximum characters of a label, group, source, finer label or id."""


def _label_text(value: object) -> object:
    """Return a whole number or a truth value as its text, as labels in the data are taken."""
    return json.dumps(value) if isinstance(value, int) else value


def _storable(value: str) -> str:
    if "\0" in value:
        raise PydanticCustomError("storable", "{text}", {"text": UNSTORABLE})
    return value


Column = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_NAME),
    AfterValidator(_storable),
    BeforeValidator(_label_text),
]

DEFAULT_LABELS = ("hate", "normal")
"""The labels allowed if the mapping declares none; they are those of the presets."""


class Mapping(BaseModel):
    """Column names and labels. A column that is set here must be in the data.

    A format may have other defaults: see the registry in `formats`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: Column = Field(default="text", description="Column with the text to classify.")
    label: Column | None = Field(
        default="label", description="Column with the label; null: no column."
    )
    group: Column | None = Field(
        default="group",
        description="Column with the group that the text is about; null: no column.",
    )
    id: Column | None = Field(
        default="id",
        description="Column with the row's id, unique in the dataset; null numbers the rows.",
    )
    source: Column | None = Field(
        default="source", description="Column with the origin of the row; null: no column."
    )
    detail: Column | None = Field(
        default="detail",
        description="Column with a finer label for the report's breakdown; null: no column.",
    )
    rationale: Column | None = Field(
        default="rationale", description="Column with the reason for the label; null: no column."
    )
    split: Column = Field(
        default="split",
        description="Column with the split (train, validation or test). Read only if one `file` "
        "holds all rows; with one file per split, the file decides.",
    )
    labels: list[Name] | dict[Name, Name] | None = Field(
        default=None,
        max_length=100,
        description="The labels allowed, or an object that maps each value in the data to its "
        'label, such as {"0": "normal", "1": "hate"}. Default: hate and normal.',
        examples=[["hate", "normal"], {"0": "normal", "1": "hate"}],
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_of_one_form(cls, value: object) -> object:
        """Refuse what is no member of the union, whose errors would be those of each member."""
        if value is None or isinstance(value, list | dict):
            return value
        text = 'must be a list of labels, or an object such as {"0": "normal", "1": "hate"}'
        raise PydanticCustomError("labels", "{text}", {"text": text})

    @field_validator("labels")
    @classmethod
    def _two_labels(
        cls, value: list[str] | dict[str, str] | None
    ) -> list[str] | dict[str, str] | None:
        if value is None:
            return value
        names = value if isinstance(value, list) else list(value.values())
        if len(set(names)) < 2:
            raise PydanticCustomError("labels", "a classifier needs at least two labels")
        if isinstance(value, list) and len(set(names)) != len(names):
            raise PydanticCustomError("labels", "each label must be listed once")
        return value

    @property
    def label_by_value(self) -> dict[str, str]:
        """Value in the data -> label."""
        if isinstance(self.labels, dict):
            return self.labels
        return {label: label for label in self.labels or DEFAULT_LABELS}

    def with_defaults(self, columns: AnyMapping[str, str]) -> Self:
        """Return a copy with `columns` (option -> column) for the options that were not set."""
        unset = {key: name for key, name in columns.items() if key not in self.model_fields_set}
        return self.model_copy(update=unset)

    def columns_set(self) -> dict[str, str]:
        """Return option -> column for the columns that were set."""
        options = self.model_fields_set - {"labels"}
        return {
            option: getattr(self, option) for option in sorted(options) if getattr(self, option)
        }


OPTIONS = frozenset(Mapping.model_fields)
"""The names of all mapping options."""


def parse_mapping(text: str | None) -> Mapping:
    """Parse the form field `mapping`; null and blank give the defaults.

    Raises InvalidRequest with pointers below ``/mapping``.
    """
    if text is None or not text.strip():
        return Mapping()
    try:
        value = DECODER.decode(text.strip())
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest.at(
            "/mapping", f"is not JSON: {json_reason(error)} ({where})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest.at("/mapping", decoding_flaw(error).detail) from error
    try:
        return Mapping.model_validate(value)
    except ValidationError as error:
        errors = tuple(
            FieldError(item.pointer, _UNKNOWN if item.detail == UNKNOWN_FIELD else item.detail)
            for item in invalid(error, "mapping").errors
        )
        raise invalid_request(errors) from error


_UNKNOWN = f"{UNKNOWN_FIELD}; mapping has {', '.join(Mapping.model_fields)}"
