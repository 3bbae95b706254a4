"""Validation errors as problems that name the field, once and in the user's terms."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from pydantic import ValidationError

from service.domain.errors import (
    FieldError,
    InvalidRequest,
    pointer_of,
)

UNKNOWN_FIELD = "unknown field"
"""Detail of an error about a field that the model lacks."""

MAX_ERRORS = 100
"""Maximum number of fields that a refusal lists."""

_DETAILS = {
    "extra_forbidden": UNKNOWN_FIELD,
    "dataclass_type": "must be an object",
    "dict_type": "must be an object",
    "mapping_type": "must be an object",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
    "list_type": "must be a list",
}
"""Type of pydantic's error -> detail, where pydantic's own names classes or Python's types."""


def invalid(error: ValidationError, *prefix: str) -> InvalidRequest:
    """Return pydantic's errors as an InvalidRequest with pointers into the body.

    `prefix` is the location of the validated value, if it is not the body.
    """
    items = error.errors(include_url=False, include_input=False)
    return invalid_request(field_errors(items, *prefix))


def invalid_request(errors: tuple[FieldError, ...]) -> InvalidRequest:
    """Return one error about several fields; its detail is that of the first."""
    least = "at least " if len(errors) == MAX_ERRORS else ""
    more = f" (and {least}{len(errors) - 1} more)" if len(errors) > 1 else ""
    first = InvalidRequest.at(errors[0].pointer, errors[0].detail)
    return InvalidRequest(first.detail + more, errors)


def field_errors(items: Iterable[Mapping[str, Any]], *prefix: str) -> tuple[FieldError, ...]:
    """Return one error for each field of pydantic's `items`.

    A union reports the errors of each of its members: those of the member that fits best remain,
    which are the deepest, and several for the same field become one. No more than MAX_ERRORS of the
    items are used.
    """
    unions: dict[tuple[str | int, ...], list[tuple[str, str]]] = {}
    details: dict[str, list[str]] = {}
    for item in islice(items, MAX_ERRORS):
        location = (*prefix, *item["loc"])
        fields = tuple(part for part in location if not _is_union_tag(part))
        detail = _detail(item)
        pointer = pointer_of(fields)
        if len(fields) == len(location):
            details.setdefault(pointer, []).append(detail)
            continue
        tag = next(index for index, part in enumerate(location) if _is_union_tag(part))
        unions.setdefault(location[:tag], []).append((pointer, detail))
    for errors in unions.values():
        depth = max(pointer.count("/") for pointer, _ in errors)
        for pointer, detail in errors:
            if pointer.count("/") == depth:
                details.setdefault(pointer, []).append(detail)
    return tuple(
        FieldError(pointer, ", or ".join(dict.fromkeys(texts)))
        for pointer, texts in details.items()
    )


def _detail(item: Mapping[str, Any]) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "too_short":
        return f"must have at least {_count(context['min_length'])}"
    if kind == "too_long":
        return f"must have at most {_count(context['max_length'])}"
    if kind == "string_too_short" and context["min_length"] == 1:
        return "must not be empty"
    detail: str = _DETAILS.get(kind, item["msg"])
    return detail


def _count(items: int) -> str:
    return f"{items:,} item" if items == 1 else f"{items:,} items"


def _is_union_tag(part: str | int) -> bool:
    """Return True for a part of a location that names the member of a union, as pydantic adds."""
    return isinstance(part, str) and part.startswith(("list[", "dict[", "literal["))
