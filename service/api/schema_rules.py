"""Rules for requests that hold wherever a value stands, in the schemas of the OpenAPI document."""

from collections.abc import Iterator
from typing import Any

from service.domain.section import refused, together
from service.domain.storable import NO_NUL

Schema = dict[str, Any]

RULES = """
Requests are read strictly. A query parameter that a call does not have, or that is sent twice, is
refused with 422, and so is an unknown field, text with NUL or an unpaired surrogate, and a number
in JSON that is written otherwise than its type (1.0 and "1" are no integers). A body is JSON in
UTF-8 without repeated keys, not compressed; a call that shows no body takes none, or `{}`.
"""
_FORM = "Body_create_dataset_v1_datasets_post"
_ONE_FILE = ("file", "train", "validation", "test")


def complete(document: Schema) -> None:
    """Add the rules to the parameters and bodies of an OpenAPI document."""
    schemas = document["components"]["schemas"]
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "query":
                    _exclude_nul(parameter["schema"], schemas)
                    _exclude_empty(parameter["schema"])
            body = operation.get("requestBody", {"content": {}})
            if (json_body := body["content"].get("application/json")) is not None:
                _exclude_nul(json_body["schema"], schemas)
    schemas[_FORM] |= {"additionalProperties": False} | _file_or_splits()


def _exclude_nul(value: Schema, schemas: Schema) -> None:
    """Add a pattern to every schema of texts within that of a value, unless it has one."""
    for schema in _within(value, schemas, set()):
        if "pattern" not in schema and any(
            alternative.get("type") == "string"
            and not {"enum", "const", "pattern"} & {*alternative}
            for alternative in (schema, *schema.get("anyOf", ()))
        ):
            schema["pattern"] = NO_NUL


def _exclude_empty(schema: Schema) -> None:
    """Require a character in each text of a query parameter."""
    for alternative in (schema, *schema.get("anyOf", ())):
        for text in (alternative, alternative.get("items", {})):
            if text.get("type") == "string" and not {"enum", "const"} & {*text}:
                text.setdefault("minLength", 1)


def _within(schema: Schema, schemas: Schema, visited: set[str]) -> Iterator[Schema]:
    """Yield the schemas of a value and of all that it contains, each component once."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in visited:
            visited.add(name)
            yield from _within(schemas[name], schemas, visited)
        return
    yield schema
    for alternative in schema.get("anyOf", ()):
        if "$ref" in alternative or alternative.get("type") in ("array", "object"):
            yield from _within(alternative, schemas, visited)
    for field in schema.get("properties", {}).values():
        yield from _within(field, schemas, visited)
    if isinstance(schema.get("items"), dict):
        yield from _within(schema["items"], schemas, visited)


def _file_or_splits() -> Schema:
    file, *splits = _ONE_FILE
    return refused(
        *(together({file: {}, split: {}}) for split in splits),
        {"not": {"anyOf": [together({name: {}}) for name in _ONE_FILE]}},
    )
