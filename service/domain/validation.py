"""Validation errors as problems that name the field."""

from pydantic import ValidationError

from service.domain.errors import (
    FieldError,
    InvalidRequest,
    pointer_of,
)

UNKNOWN_FIELD = "unknown field"
"""Detail of an error about a field that the model lacks."""


def invalid(error: ValidationError) -> InvalidRequest:
    """Return pydantic's errors as an InvalidRequest with pointers into the body."""
    errors = tuple(
        FieldError(
            pointer_of(part for part in item["loc"] if not _is_union_tag(part)),
            UNKNOWN_FIELD if item["type"] == "extra_forbidden" else item["msg"],
        )
        for item in error.errors(include_url=False)
    )
    # A union reports the same error once per member: once is enough for a field.
    unique = tuple({item.pointer + item.detail: item for item in errors}.values())
    first = unique[0]
    more = f" (and {len(unique) - 1} more)" if len(unique) > 1 else ""
    return InvalidRequest(f"{first.pointer}: {first.detail}{more}", unique)


def _is_union_tag(part: str | int) -> bool:
    """Return True for a part of a location that names the member of a union, as pydantic adds."""
    return isinstance(part, str) and part.startswith(("list[", "literal["))
