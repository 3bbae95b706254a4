"""How the columns and labels of an uploaded file are to be read."""

from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)
from pydantic_core import PydanticCustomError

from service.domain.errors import FieldError, InvalidRequest

MAX_NAME = 200
"""Characters of a label, group, source, finer label or id."""

Column = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]
Name = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00]*$"
    ),
]

DEFAULT_LABELS = ("hate", "normal")
"""The presets' labels: what a label may be when the mapping declares none."""

_UNIFIED = {
    "label": "label_binary",
    "group": "target_group_norm",
    "source": "source_dataset",
    "detail": "label_multiclass",
    "rationale": "rationale_text",
    "id": "original_id",
}


class Mapping(BaseModel):
    """Column names and labels. A column that is set here must be in the data.

    In the unified JSON a name that is not set here has that format's own default instead:
    label_binary, target_group_norm, source_dataset, label_multiclass, rationale_text, original_id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: Column = Field(default="text", description="Column of the text to classify.")
    label: Column | None = Field(
        default="label", description="Column of the label; null reads none."
    )
    group: Column | None = Field(
        default="group", description="Column of the group that the text is about; null reads none."
    )
    id: Column | None = Field(
        default="id",
        description="Column of the row's id, unique in the dataset; null numbers the rows.",
    )
    source: Column | None = Field(
        default="source", description="Column that says where a row is from; null reads none."
    )
    detail: Column | None = Field(
        default="detail", description="Column of a finer label for the report; null reads none."
    )
    rationale: Column | None = Field(
        default="rationale", description="Column of the reason for the label; null reads none."
    )
    split: Column = Field(
        default="split",
        description="Column of the split (train, validation, test), read where one `file` holds "
        "all rows; with one file per split the file decides.",
    )
    labels: list[Name] | dict[Name, Name] | None = Field(
        default=None,
        max_length=100,
        description="The labels allowed, or an object from the value in the data to the label "
        'that it means, such as {"0": "normal", "1": "hate"}. Default: hate and normal.',
        examples=[["hate", "normal"], {"0": "normal", "1": "hate"}],
    )

    @field_validator("labels")
    @classmethod
    def _two_labels(
        cls, value: list[str] | dict[str, str] | None
    ) -> list[str] | dict[str, str] | None:
        if value is None:
            return value
        names = value if isinstance(value, list) else list(value.values())
        if len(set(names)) < 2:
            raise PydanticCustomError("labels", "a classifier needs two labels")
        if isinstance(value, list) and len(set(names)) != len(names):
            raise PydanticCustomError("labels", "a label is named twice")
        return value

    @property
    def words(self) -> dict[str, str]:
        """Value in the data -> label."""
        if isinstance(self.labels, dict):
            return self.labels
        return {label: label for label in self.labels or DEFAULT_LABELS}

    def for_unified(self) -> Self:
        """The same with the unified JSON's names where the user set none."""
        names = {key: name for key, name in _UNIFIED.items() if key not in self.model_fields_set}
        return self.model_copy(update=names)

    def named(self) -> dict[str, str]:
        """Field -> column for the columns that the user set."""
        fields = self.model_fields_set - {"labels"}
        return {field: getattr(self, field) for field in sorted(fields) if getattr(self, field)}


def parse_mapping(text: str | None) -> Mapping:
    """Read the form field `mapping`; null and blank give the defaults.

    Raises InvalidRequest with pointers below ``/mapping``.
    """
    if text is None or not text.strip():
        return Mapping()
    try:
        return Mapping.model_validate_json(text)
    except ValidationError as error:
        errors = tuple(
            FieldError(
                "/".join(["/mapping", *(str(part) for part in _path(item["loc"]))]), item["msg"]
            )
            for item in error.errors(include_url=False, include_input=False)
        )
        raise InvalidRequest(f"mapping: {errors[0].detail}", errors) from error


def _path(loc: tuple[int | str, ...]) -> list[int | str]:
    """`loc` without pydantic's names for the members of a union (as in labels.list[…].0)."""
    return [part for part in loc if not (isinstance(part, str) and "[" in part)]
