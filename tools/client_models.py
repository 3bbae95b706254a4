"""Write fairtune/models.py, the client's types, from the service's OpenAPI document.

`python -m tools.client_models` writes the file, `--check` compares it only: `make check` does so.
"""

import argparse
import keyword
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.api.app import create_app
from service.cli.settings import read_settings

FILE = Path(__file__).parents[1] / "fairtune" / "models.py"
_HEADER = '''"""Types of the API's resources and of their parts.

Generated from the service's OpenAPI document by tools/client_models.py; do not edit. A field that
an older server does not send is None, or has its default. A newer server's further fields are in
`raw` only.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Required, TypedDict

from fairtune._decoding import Model

'''
_SCALARS = {"integer": "int", "number": "float", "string": "str", "boolean": "bool"}
_OPTIONS = {
    "Cap": "CapOptions",
    "ChatTurn": "Turn",
    "LoraSection": "LoraOptions",
    "QuantizationSection": "QuantizationOptions",
    "TrainingSection": "TrainingOptions",
    "FairnessSection": "FairnessOptions",
    "EvaluationSection": "EvaluationOptions",
    "ResourcesSection": "ResourcesOptions",
}
"""Parts of requests, as the typed dictionaries that the client's methods take."""
_SKIPPED_PREFIXES = ("Body_", "Page_")


def document() -> dict[str, Any]:
    """Return the OpenAPI document of the service."""
    with tempfile.TemporaryDirectory() as data_dir:
        app = create_app(read_settings(data_dir=Path(data_dir)))
        openapi = app.openapi()
        app.state.context.database.dispose()
    return openapi


def source(openapi: dict[str, Any]) -> str:
    """Return the text of the module."""
    schemas = {
        name: schema
        for name, schema in openapi["components"]["schemas"].items()
        if not name.startswith(_SKIPPED_PREFIXES)
    }
    text = _HEADER
    for name, schema in schemas.items():
        if "enum" in schema:
            text += f"{name} = {_literal(schema['enum'])}\n"
            text += _docstring(schema.get("description"), "")
    for name in _in_order(schemas):
        if name in _OPTIONS:
            text += "\n\n" + "\n".join(_options(name, schemas[name])) + "\n"
        text += "\n\n" + "\n".join(_class(name, schemas[name])) + "\n"
    return _formatted(text)


def _in_order(schemas: dict[str, Any]) -> list[str]:
    """Return the names of the classes, each after those that it refers to."""
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in ordered or "enum" in schemas[name]:
            return
        for reference in sorted(_references(schemas[name])):
            visit(reference)
        ordered[name] = None

    for name in schemas:
        visit(name)
    return list(ordered)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rsplit("/", 1)[1]
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _class(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield "@dataclass(kw_only=True, repr=False)"
    yield f"class {name}(Model):"
    yield _docstring(schema.get("description") or schema.get("title"), "    ")
    required = schema.get("required", [])
    for field_name, field_schema in schema.get("properties", {}).items():
        attribute = f"{field_name}_" if keyword.iskeyword(field_name) else field_name
        annotation = _annotation(field_schema)
        default = "" if field_name in required else f" = {_default(field_schema)}"
        if default == " = None" and "None" not in annotation:
            annotation += " | None"
        yield f"    {attribute}: {annotation}{default}"
        yield _docstring(field_schema.get("description"), "    ")


def _options(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"class {_OPTIONS[name]}(TypedDict, total=False):"
    yield _docstring(schema.get("description") or schema.get("title"), "    ")
    required = schema.get("required", [])
    for field_name, field_schema in schema["properties"].items():
        annotation = _annotation(field_schema)
        for class_name, options_name in _OPTIONS.items():
            annotation = annotation.replace(f"[{class_name}]", f"[{options_name}]")
        yield f"    {field_name}: " + (
            f"Required[{annotation}]" if field_name in required else annotation
        )
        yield _docstring(field_schema.get("description"), "    ")


def _annotation(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[1])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(map(_annotation, schema["anyOf"])))
    if "enum" in schema:
        return _literal(schema["enum"])
    if "const" in schema:
        return _literal([schema["const"]])
    kind = schema.get("type")
    if kind == "array":
        return f"list[{_annotation(schema['items'])}]"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"dict[str, {_annotation(values) if isinstance(values, dict) else 'Any'}]"
    if kind == "null":
        return "None"
    if schema.get("format") == "date-time":
        return "datetime"
    return _SCALARS.get(str(kind), "Any")


def _literal(values: list[Any]) -> str:
    return f"Literal[{', '.join(map(repr, values))}]"


def _default(schema: dict[str, Any]) -> str:
    default = schema.get("default")
    if isinstance(default, list):
        return "field(default_factory=list)"
    if "$ref" in schema and isinstance(default, dict):
        return f"field(default_factory={_annotation(schema)})"
    if isinstance(default, dict):
        return "field(default_factory=dict)"
    return repr(default)


def _docstring(description: str | None, indent: str) -> str:
    if not description:
        return ""
    quoted = description.strip().replace("\\", "\\\\").replace('"""', "'''")
    if quoted.endswith('"'):
        quoted += " "
    width = 100 - len(indent)
    paragraphs = [
        textwrap.fill(" ".join(paragraph.split()), width - 7, break_long_words=False)
        for paragraph in quoted.split("\n\n")
    ]
    body = "\n\n".join(paragraphs)
    if "\n" in body:
        body += "\n"
    return textwrap.indent(f'"""{body}"""', indent).replace("\n\n\n", "\n\n") + "\n"


def _formatted(text: str) -> str:
    ruff = str(Path(sys.executable).with_name("ruff"))
    command = [ruff, "format", "--stdin-filename", str(FILE), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    is_check = parser.parse_args().check
    text = source(document())
    if not is_check:
        FILE.write_text(text)
    elif FILE.read_text() != text:
        print("fairtune/models.py differs from the OpenAPI document: python -m tools.client_models")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
