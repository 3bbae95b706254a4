"""`--set section.field=value`: changes of a specification on the command line."""

import json
from typing import Annotated, Any, NoReturn

import typer

from service.cli.errors import ExitStatus, refuse
from service.cli.spec_file import parse_json
from service.domain.json_reasons import json_reason
from service.domain.spec import overlay

Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Set a field, such as training.learning_rate=3e-4; the value is JSON, or else text. "
        "Repeatable; overrides --file and the other options.",
    ),
]

_PYTHON = {"True": "true", "False": "false", "None": "null"}


def assigned(assignments: list[str]) -> dict[str, Any]:
    """Return the specification that assignments make; of two for one field the later counts.

    Raises Exit.
    """
    spec: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        parts = name.strip().split(".")
        if not separator or not all(parts):
            _refuse(f"--set {assignment}: write FIELD=VALUE, such as training.learning_rate=3e-4")
        value = _value(assignment, text.strip())
        for part in reversed(parts):
            value = {part: value}
        spec = _merged(spec, value)
    return spec


def with_changes(spec: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `spec` with `changes`, field by field; max_steps replaces num_train_epochs."""
    return overlay(spec, changes)


def _merged(spec: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(spec)
    for key, value in changes.items():
        before = merged.get(key)
        both = isinstance(before, dict) and isinstance(value, dict)
        merged[key] = _merged(before, value) if both else value  # type: ignore[arg-type]
    return merged


def _value(assignment: str, text: str) -> Any:
    if text in _PYTHON:
        _refuse(f"--set {assignment}: {text} is Python; write {_PYTHON[text]}")
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        if text[:1] in ("{", "[", '"'):
            _refuse(
                f"--set {assignment}: not valid JSON at column {error.colno}: {json_reason(error)}"
            )
    except RecursionError:
        _refuse(f"--set {assignment[:40]}…: nested too deeply")
    except ValueError as error:
        if text[:1] in ("{", "["):
            _refuse(f"--set {assignment}: {error}")
    return text


def _refuse(detail: str) -> NoReturn:
    refuse(detail, status=ExitStatus.USAGE)
