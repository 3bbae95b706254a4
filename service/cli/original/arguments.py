"""The flags and the configuration file of `fairtune train` as values by key.

Flags are those of transformers' HfArgumentParser: with underscores or dashes, `--bf16`,
`--bf16 false`, `--bf16=False`, `--no_bf16`; a list is separated by commas or blanks.
"""

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from service.cli.original.keys import CANONICAL, KEYS, Key
from service.cli.original.other_keys import FIXED, FOREIGN_SECTIONS, NO_EFFECT, has_no_effect
from service.domain.decoding import NotTextError, text_of
from service.domain.json_reasons import json_reason

_TRUE = ("true", "yes", "y", "t", "on", "1")
_FALSE = ("false", "no", "n", "f", "off", "0")
CONFIG_FILE = "config_file"


class Flaw(NamedTuple):
    """A key, file or argument that is refused."""

    where: str
    detail: str


class Refused(Exception):
    """Arguments that are invalid; every one of them is listed."""

    def __init__(self, flaws: Sequence[Flaw], values: Mapping[str, Any] | None = None) -> None:
        """`values` are those of the arguments without a flaw."""
        self.flaws = list(dict.fromkeys(flaws))
        self.values = dict(values or {})
        super().__init__("\n".join(f"{flaw.where}: {flaw.detail}" for flaw in self.flaws))


def parse_flags(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the flags' values by key, checked for their kind. The last of repeated flags counts.

    Raises Refused, with every flaw.
    """
    values: dict[str, Any] = {}
    flaws: list[Flaw] = []
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        if not argument.startswith("--") or argument == "--":
            flaws.append(Flaw(argument, "is no flag; every argument has the form --key value"))
            continue
        spelled, equals, text = argument[2:].partition("=")
        name = spelled.replace("-", "_")
        negated = name.removeprefix("no_")
        if negated != name and CANONICAL.get(negated) in KEYS:
            flaw = _negate(values, CANONICAL[negated], f"--{spelled}", bool(equals))
            flaws += [] if flaw is None else [flaw]
            continue
        key = KEYS.get(CANONICAL.get(name, ""))
        if flaw := _unknown(name, f"--{spelled}"):
            flaws.append(flaw)
            _values_of(pending, "list")
            continue
        texts = [text] if equals else _values_of(pending, _arity(key, name))
        try:
            values[name if key is None else key.name] = _flag_value(key, texts)
        except ValueError as error:
            flaws.append(Flaw(f"--{spelled}", str(error)))
    if flaws:
        raise Refused(flaws, values)
    return values


def _negate(values: dict[str, Any], name: str, where: str, has_value: bool) -> Flaw | None:
    if KEYS[name].kind != "flag":
        return Flaw(where, f"{name} is no switch: use --{name} with a value")
    if has_value:
        return Flaw(where, f"takes no value: use --{name} with true or false")
    values[name] = False
    return None


def _arity(key: Key | None, name: str) -> str:
    if key is not None:
        return key.kind
    return "list" if name in NO_EFFECT else "any"


def _values_of(pending: list[str], kind: str) -> list[str]:
    """Remove and return the following arguments that are values of a flag of this kind."""
    values: list[str] = []
    while pending and not pending[0].startswith("--"):
        if kind == "flag" and pending[0].lower() not in _TRUE + _FALSE:
            break
        values.append(pending.pop(0))
        if kind != "list":
            break
    return values


def _flag_value(key: Key | None, texts: list[str]) -> Any:
    if key is None:
        return " ".join(texts) if texts else True
    if key.kind == "flag":
        return coerce(key, texts[0]) if texts else True
    if not texts:
        raise ValueError("a value is missing")
    return coerce(key, ",".join(texts) if key.kind == "list" else texts[0])


def read_config(path: Path) -> dict[str, Any]:
    """Return the configuration file's values by key, checked for their kind.

    Raises Refused, with every flaw; OSError if the file cannot be read.
    """
    where = f"{CONFIG_FILE} {path}"
    repeated: list[str] = []

    def fields_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        repeated.extend(name for name in fields if [key for key, _ in pairs].count(name) > 1)
        return fields

    try:
        fields = json.loads(text_of(path.read_bytes()), object_pairs_hook=fields_of)
    except NotTextError as error:
        raise Refused([Flaw(where, error.detail)]) from error
    except json.JSONDecodeError as error:
        reason = f"is not JSON: {json_reason(error)} (line {error.lineno}, column {error.colno})"
        raise Refused([Flaw(where, reason)]) from error
    except (ValueError, RecursionError) as error:
        raise Refused([Flaw(where, f"is not JSON: {error}")]) from error
    if not isinstance(fields, dict):
        raise Refused([Flaw(where, "must be a JSON object of keys and values")])
    flaws = [Flaw(name, "is in the file twice: remove one") for name in dict.fromkeys(repeated)]
    return _config_values(fields, flaws)


def _config_values(fields: Mapping[str, Any], flaws: list[Flaw]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for spelled, value in fields.items():
        name = spelled.replace("-", "_")
        if flaw := _unknown(name, spelled):
            flaws.append(flaw)
            continue
        key = KEYS.get(CANONICAL.get(name, ""))
        target = name if key is None else key.name
        if target in values:
            flaws.append(Flaw(spelled, f"is another spelling of {target}: remove one"))
            continue
        try:
            values[target] = value if key is None or value is None else coerce(key, value)
        except ValueError as error:
            flaws.append(Flaw(spelled, str(error)))
    if flaws:
        raise Refused(flaws, values)
    return values


def _unknown(name: str, spelled: str) -> Flaw | None:
    """Return the flaw of a key that nobody knows, else None."""
    if name in CANONICAL or name in FIXED or has_no_effect(name):
        return None
    if name in FOREIGN_SECTIONS:
        detail = "is a field of Fairtune's own specification: fairtune runs create takes that file"
        return Flaw(spelled, detail)
    if name == CONFIG_FILE:
        return Flaw(spelled, "is a flag of the command line alone, and set once")
    near = difflib.get_close_matches(name, CANONICAL, n=2, cutoff=0.75)
    near += [key for key in KEYS if name and key.endswith(f"_{name}") and key not in near]
    near = near or difflib.get_close_matches(name, [*FIXED, *NO_EFFECT], n=2, cutoff=0.75)
    hint = f"did you mean {' or '.join(near[:2])}?" if near else "fairtune train --help lists keys"
    return Flaw(spelled, f"unknown key; {hint}")


def coerce(key: Key, value: Any) -> Any:
    """Return a value of the file or the text of a flag in the kind of its key.

    Raises ValueError.
    """
    match key.kind:
        case "flag":
            return _flag(value)
        case "whole":
            number = _number(value, "must be a whole number")
            if not number.is_integer():
                raise ValueError("must be a whole number")
            return int(number)
        case "number":
            return _number(value, "must be a number")
        case "list":
            return _list(value)
        case "text":
            if not isinstance(value, str) or not value.strip():
                raise ValueError("must be a text that is not empty")
            return value


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = value.strip().lower() if isinstance(value, str) else None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("must be true or false")


def _number(value: Any, refusal: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(refusal) from None
    if not math.isfinite(number):
        raise ValueError(refusal)
    return number


def _list(value: Any) -> list[str]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("must be a list of names, or names separated by commas")
    return [name.strip() for name in names if name.strip()]
