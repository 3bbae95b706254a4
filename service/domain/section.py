"""Base class and helpers of the sections of a run specification."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

# Counts of steps: far beyond any run, and within the range of every database's integer.
Steps = Annotated[int, Field(le=10_000_000)]


def refuse(detail: str) -> PydanticCustomError:
    """Return a validation error with exactly this text ('{' in it is not a placeholder)."""
    return PydanticCustomError("not_possible", "{detail}", {"detail": detail})


class Section(BaseModel):
    # Strict: "8" is no number and true is not 1. An integer is still accepted as a float.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)
