"""Base class and helpers of the sections of a run specification."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

# Counts of steps: far beyond any run, and within the range of every database's integer.
Steps = Annotated[int, Field(le=10_000_000)]


def refuse(detail: str) -> PydanticCustomError:
    """Return a validation error with exactly this text ('{' in it is not a placeholder)."""
    return PydanticCustomError("not_possible", "{detail}", {"detail": detail})


def together(fields: JsonDict, *, or_omitted: str | None = None) -> JsonDict:
    """Return the JSON Schema of objects whose fields all match; one of them may be omitted."""
    return {"properties": fields, "required": [name for name in fields if name != or_omitted]}


def refused(*combinations: JsonDict) -> JsonDict:
    """Return the keyword for combinations of fields that a model's validators refuse.

    It is one `not`, which generators of clients ignore, where `oneOf` would give them a class for
    each alternative.
    """
    return {"not": {"anyOf": [*combinations]}}


class Section(BaseModel):
    # Strict: "8" is no number and true is not 1. An integer is still accepted as a float.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)
