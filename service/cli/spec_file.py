"""Specification files: YAML, JSON or TOML, in any encoding that datasets may have."""

import json
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from service.cli.errors import ExitStatus, refuse
from service.domain.decoding import NotTextError, text_of
from service.domain.json_reasons import json_reason

_MAX_BYTES = 1 << 24
_SUFFIXES = {".json": "JSON", ".toml": "TOML", ".yaml": "YAML", ".yml": "YAML"}


class _RepeatedKeyError(ValueError):
    def __init__(self, key: object) -> None:
        super().__init__(f"the key {key!r} occurs twice; remove one")


def read_object(option: str, file: Path) -> dict[str, Any]:
    """Return the object in a file; - is YAML or JSON on standard input. Raises Exit."""
    subject = f"{option} {file}"
    kind = _SUFFIXES.get(file.suffix.lower())
    if kind is None and str(file) != "-":
        _refuse(f"{subject}: the name must end with {', '.join(_SUFFIXES)}")
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        if len(content) > _MAX_BYTES:
            _refuse(f"{subject} has more than {_MAX_BYTES:,} bytes and is no specification")
        text = text_of(content)
    except OSError as error:
        _refuse(f"{subject}: {error.strerror or error}")
    except NotTextError as error:
        _refuse(f"{subject} {error.detail}")
    if kind is None:
        kind = "JSON" if text.lstrip().startswith("{") else "YAML"
    return parse_object(subject, text, kind)


def parse_object(subject: str, text: str, kind: str) -> dict[str, Any]:
    """Return the object in a text; `kind` is JSON, TOML or YAML. Raises Exit."""
    if not text.strip():
        _refuse(f"{subject} is empty")
    try:
        value = _PARSERS[kind](text)
        # What follows is sent as JSON: dates, NaN and cycles are refused here.
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        _refuse(
            f"{subject} is not valid JSON at line {error.lineno} column {error.colno}: "
            f"{json_reason(error)}"
        )
    except tomllib.TOMLDecodeError as error:
        _refuse(f"{subject} is not valid TOML: {error}")
    except RecursionError:
        _refuse(f"{subject} is nested too deeply")
    except UnicodeEncodeError:
        _refuse(f"{subject} has an unpaired surrogate, such as \\ud800, in a text")
    except TypeError:
        _refuse(f"{subject}: {_first_foreign(value)} has no JSON value; write it in quotes")
    except ValueError as error:
        _refuse(f"{subject}: {error}")
    if not isinstance(value, dict):
        _refuse(f"{subject} must be an object of names and values")
    return value


def parse_json(text: str) -> Any:
    """Return a JSON value; NaN and repeated keys are refused. Raises ValueError."""

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no value of JSON; write null or a number")

    return json.loads(text, object_pairs_hook=_unique, parse_constant=no_constant)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise _RepeatedKeyError(key)
        values[key] = value
    return values


def _parse_yaml(text: str) -> Any:
    # PyYAML takes a moment to load, and few commands read YAML.
    from service.cli.yaml_loader import load

    return load(text)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "JSON": parse_json,
    "TOML": tomllib.loads,
    "YAML": _parse_yaml,
}


def _first_foreign(value: Any, path: str = "") -> str:
    """Return the path of the first value that JSON cannot hold, such as a date."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"the key {key!r}"
            if name := _first_foreign(item, f"{path}.{key}" if path else key):
                return name
    elif isinstance(value, list):
        for number, item in enumerate(value):
            if name := _first_foreign(item, f"{path}[{number}]"):
                return name
    elif not isinstance(value, str | int | float | bool | None):
        return f"{path} ({value})"
    return ""


def _refuse(detail: str) -> NoReturn:
    refuse(detail, status=ExitStatus.USAGE)
