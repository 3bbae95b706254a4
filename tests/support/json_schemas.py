"""Values of a JSON Schema for hypothesis, and the comparison of a value with a schema.

Only the keywords that the OpenAPI document uses are known; another one is an error here.
"""

import json
import re
from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]
_ANNOTATIONS = {"title", "description", "default", "examples", "example", "contentMediaType"}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}
_FAR = 10**6


def pattern_of(schema: Schema) -> re.Pattern[str]:
    """Return the pattern of a schema; its $ is the end of the text, also after a line end."""
    return re.compile(re.sub(r"(?<!\\)\$$", r"\\Z", schema["pattern"]))


def matches(value: object, schema: Schema, schemas: Schema) -> bool:
    return all(_holds(keyword, value, schema, schemas) for keyword in schema)


def _holds(keyword: str, value: Any, schema: Schema, schemas: Schema) -> bool:
    bound = schema[keyword]
    match keyword:
        case "$ref":
            return matches(value, schemas[bound.rpartition("/")[2]], schemas)
        case "type":
            is_bool = isinstance(value, bool) and bound != "boolean"
            return isinstance(value, _TYPES[bound]) and not is_bool
        case "const":
            return value == bound and isinstance(value, bool) == isinstance(bound, bool)
        case "enum":
            return value in bound
        case "anyOf":
            return any(matches(value, alternative, schemas) for alternative in bound)
        case "not":
            return not matches(value, bound, schemas)
    if isinstance(value, str):
        match keyword:
            case "pattern":
                return pattern_of(schema).search(value) is not None
            case "minLength":
                return len(value) >= bound
            case "maxLength":
                return len(value) <= bound
    if isinstance(value, int | float) and not isinstance(value, bool):
        match keyword:
            case "minimum":
                return value >= bound
            case "maximum":
                return value <= bound
            case "exclusiveMinimum":
                return value > bound
            case "exclusiveMaximum":
                return value < bound
    if isinstance(value, list):
        match keyword:
            case "items":
                return all(matches(item, bound, schemas) for item in value)
            case "minItems":
                return len(value) >= bound
            case "maxItems":
                return len(value) <= bound
            case "uniqueItems":
                return len({json.dumps(item) for item in value}) == len(value)
    if isinstance(value, dict):
        match keyword:
            case "properties":
                return all(
                    matches(value[name], field, schemas)
                    for name, field in bound.items()
                    if name in value
                )
            case "required":
                return set(bound) <= set(value)
            case "additionalProperties":
                return bound is not False or set(value) <= set(schema["properties"])
    assert keyword in _ANNOTATIONS | _OF_TYPES, f"unknown keyword {keyword}"
    return True


_OF_TYPES = {"pattern", "minLength", "maxLength", "minimum", "maximum", "items", "minItems"} | {
    "maxItems", "uniqueItems", "properties", "required", "additionalProperties",
    "exclusiveMinimum", "exclusiveMaximum",
}  # fmt: skip


def values(schema: Schema, schemas: Schema) -> st.SearchStrategy[Any]:
    """Values that match the schema, of modest size."""
    return _candidates(schema, schemas).filter(lambda value: matches(value, schema, schemas))


def _candidates(schema: Schema, schemas: Schema) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return values(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        common = {name: schema[name] for name in ("pattern", "uniqueItems") if name in schema}
        return st.one_of(*(values(common | one, schemas) for one in schema["anyOf"]))
    match schema.get("type"):
        case "string" if "pattern" in schema:
            return st.from_regex(pattern_of(schema))
        case "string":
            return st.text(max_size=20)
        case "integer":
            return st.integers(schema.get("minimum", -_FAR), schema.get("maximum", _FAR))
        case "number":
            low = schema.get("minimum", schema.get("exclusiveMinimum", -_FAR))
            return st.floats(low, schema.get("maximum", schema.get("exclusiveMaximum", _FAR)))
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "array":
            least, most = schema.get("minItems", 0), min(3, schema.get("maxItems", 3))
            return st.lists(values(schema["items"], schemas), min_size=least, max_size=most)
        case "object":
            fields = {name: values(field, schemas) for name, field in schema["properties"].items()}
            required = {name: fields.pop(name) for name in schema.get("required", ())}
            return st.fixed_dictionaries(required, optional=fields)
    raise NotImplementedError(schema)
