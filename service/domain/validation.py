"""Validation errors as problems that name the field, once and in the user's terms."""

import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from pydantic import ValidationError

from service.domain.errors import (
    FieldError,
    InvalidRequest,
    pointer_of,
)
from service.domain.wording import count

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
    "missing": "is missing",
    "string_type": "must be a string",
    "string_unicode": "must be a string without unpaired surrogates",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_long": "must have at most {max_length:,} characters",
    "string_too_short": "must have at least {min_length:,} characters",
}
"""Type of pydantic's error -> detail; pydantic's own speaks of inputs, classes or Python's types.
"""


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
        FieldError(pointer, _either(list(dict.fromkeys(texts))))
        for pointer, texts in details.items()
    )


def _detail(item: Mapping[str, Any]) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "too_short":
        return f"must have at least {count(context['min_length'], 'item')}"
    if kind == "too_long":
        return f"must have at most {count(context['max_length'], 'item')}"
    if kind == "string_too_short" and context["min_length"] == 1:
        return "must not be empty"
    if kind in _DETAILS:
        return _DETAILS[kind].format(**context)
    message: str = item["msg"]
    return re.sub(r"^(Input|String) should ", "must ", message)


def _either(details: list[str]) -> str:
    """Return one detail for several, of which one must be met."""
    first, *others = details
    return ", or ".join([first, *(detail.removeprefix("must be ") for detail in others)])


def _is_union_tag(part: str | int) -> bool:
    """Return True for a part of a location that names the member of a union, as pydantic adds."""
    return isinstance(part, str) and part.startswith(("list[", "dict[", "literal["))
