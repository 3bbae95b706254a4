"""Near matches of a misspelt field among the fields of a specification."""

from collections.abc import Iterator
from difflib import get_close_matches

from pydantic import BaseModel

from service.domain.errors import FieldError, InvalidRequest
from service.domain.validation import UNKNOWN_FIELD, invalid_request

_MIN_PART = 3
_MAX_MATCHES = 3


def with_near_names(error: InvalidRequest, model: type[BaseModel]) -> InvalidRequest:
    """Return the error with near matches for each unknown field of `model` or of its sections."""
    if not any(item.detail == UNKNOWN_FIELD for item in error.errors):
        return error
    return invalid_request(tuple(_advised(item, model) for item in error.errors))


def _advised(item: FieldError, model: type[BaseModel]) -> FieldError:
    if item.detail != UNKNOWN_FIELD:
        return item
    *path, name = item.pointer.removeprefix("/").split("/")
    sections = dict(_sections(model))
    siblings = sections.get("/".join(path), [])
    names = _pointers(sections, {name}) or _near(name, siblings)
    if not names:
        fields = {field for fields in sections.values() for field in fields}
        names = _pointers(sections, {field for field in fields if _near(name, [field])})
    if not names:
        return item
    return FieldError(item.pointer, f"{UNKNOWN_FIELD}; did you mean {' or '.join(names)}?")


def _pointers(sections: dict[str, list[str]], names: set[str]) -> list[str]:
    """Return the pointers of the fields of any section that have one of the names."""
    return [
        f"/{path}/{field}".replace("//", "/")
        for path, fields in sections.items()
        for field in fields
        if field in names
    ][:_MAX_MATCHES]


def _sections(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield the path of each object of a specification with the names of its fields."""
    yield path, list(model.model_fields)
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _sections(field.annotation, f"{path}/{name}".lstrip("/"))


def _near(name: str, fields: list[str]) -> list[str]:
    """Return the fields that `name` misspells, is a part of, or contains."""
    plain = name.lower().replace("-", "_")
    close = get_close_matches(plain, fields, _MAX_MATCHES, 0.75)
    if close or len(plain) < _MIN_PART:
        return close
    return [
        field for field in fields if plain in field or (len(field) >= _MIN_PART and field in plain)
    ][:_MAX_MATCHES]
