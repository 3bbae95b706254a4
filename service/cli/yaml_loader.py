"""YAML 1.2's core schema, in which `no` is a text and 3e-4 a number.

PyYAML implements YAML 1.1, where `eval_strategy: no` is false and `learning_rate: 3e-4` is a text.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

_NUMBER = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
_CORE = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        rf"{_NUMBER}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": (r"<<", "<"),
}


class _CoreLoader(yaml.SafeLoader):  # type: ignore[misc]  # published without types
    """Loader of values that JSON has; repeated keys are refused."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - the attribute of PyYAML

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping. Raises ConstructorError for a repeated key."""
        keys: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} must be a text", key_node.start_mark
                )
            if key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} occurs twice; remove one", key_node.start_mark
                )
            keys.add(key)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return a whole number; a leading zero does not make it octal."""
        text = node.value
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


for _name, (_pattern, _first) in _CORE.items():
    _CoreLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}",
        re.compile(rf"^(?:{_pattern})$"),
        ["" if character == "\0" else character for character in _first],
    )
_CoreLoader.add_constructor("tag:yaml.org,2002:int", _CoreLoader.construct_yaml_int)


def load(text: str) -> Any:
    """Return the value of a YAML document. Raises ValueError."""
    try:
        return yaml.load(text, Loader=_CoreLoader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = "" if mark is None else f" at line {mark.line + 1} column {mark.column + 1}"
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise ValueError(f"is not valid YAML{at}: {reason}") from None
