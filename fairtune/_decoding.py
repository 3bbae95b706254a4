"""Dataclasses from the API's JSON."""

import dataclasses
import functools
import keyword
import types
import typing
from collections.abc import Callable
from datetime import datetime
from typing import Any, Self

_Convert = Callable[[Any], Any]


@dataclasses.dataclass(kw_only=True, repr=False)
class Model:
    """Base of all resources: a dataclass with the JSON object from which it was read in `raw`."""

    @property
    def raw(self) -> dict[str, Any]:
        """JSON object as the server sent it."""
        content: dict[str, Any] = self.__dict__.get("_raw", {})
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read an object of the API; its unknown fields are in `raw` only."""
        model = cls.__new__(cls)
        model._read(content)
        return model

    def _read(self, content: dict[str, Any]) -> None:
        """Set every field from the JSON object; a missing one gets its default, else None."""
        for attribute, (name, convert, default) in _converters(type(self)).items():  # type: ignore[arg-type]
            value = content.get(name)
            setattr(self, attribute, default() if value is None else convert(value))
        self.__dict__["_raw"] = content

    def __repr__(self) -> str:
        shown = (
            f"{name}={getattr(self, name)!r}"
            for name in ("id", "name", "status", "group", "value", "code", "path", "step")
            if name in self.__dataclass_fields__ and getattr(self, name) is not None
        )
        return f"{type(self).__name__}({', '.join(shown)})"


@functools.cache
def _converters(cls: type[Model]) -> dict[str, tuple[str, _Convert, Callable[[], Any]]]:
    """Return for each attribute of `cls` the JSON name, the conversion and the default."""
    hints = typing.get_type_hints(cls)
    return {
        field.name: (_json_name(field.name), _converter(hints[field.name]), _default(field))
        for field in dataclasses.fields(cls)
    }


def _json_name(attribute: str) -> str:
    bare = attribute.removesuffix("_")
    return bare if keyword.iskeyword(bare) else attribute


def _default(field: "dataclasses.Field[Any]") -> Callable[[], Any]:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory
    default = None if field.default is dataclasses.MISSING else field.default
    return lambda: default


def _converter(hint: Any) -> _Convert:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _first_that_converts([_converter(a) for a in arguments if a is not type(None)])
    if origin is list:
        return functools.partial(_list, _converter(arguments[0]))
    if origin is dict:
        return functools.partial(_mapping, _converter(arguments[1]))
    if isinstance(hint, type) and issubclass(hint, Model):
        return hint.from_json
    if hint is datetime:
        return datetime.fromisoformat
    return lambda value: value


def _list(convert_item: _Convert, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return [None if item is None else convert_item(item) for item in value]


def _mapping(convert_value: _Convert, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no object")
    return {key: None if item is None else convert_value(item) for key, item in value.items()}


def _first_that_converts(converters: list[_Convert]) -> _Convert:
    """Return the conversion of a union, of which at most one member is an object or a list."""
    if len(converters) == 1:
        return converters[0]

    def convert(value: Any) -> Any:
        for member in converters:
            try:
                return member(value)
            except (TypeError, ValueError, AttributeError):
                continue
        return value

    return convert
