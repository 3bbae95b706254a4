"""Bodies of POST /v1/runs and POST /v1/runs/{id}/clone.

Both are validated after they have been merged into a preset or another run's specification.
"""

from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from service.domain.spec import MODEL_NAME, RunSpec
from service.domain.storable import PRINTABLE


class _AsRunSpec:
    """A JSON object with the JSON schema of RunSpec."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        run_spec = handler.resolve_ref_schema(handler(RunSpec.__pydantic_core_schema__))
        return run_spec | {"properties": _request_fields(run_spec["properties"])}


def _request_fields(properties: JsonSchemaValue) -> JsonSchemaValue:
    """Return the fields of RunSpec with the rules for requests, which stored runs may break."""
    tags = properties["tags"]
    return properties | {
        "name": properties["name"] | {"pattern": PRINTABLE},
        "tags": tags | {"items": tags["items"] | {"pattern": PRINTABLE}},
        "base_model": properties["base_model"] | {"pattern": f"^{MODEL_NAME.pattern}$"},
    }


class _AsChanges(_AsRunSpec):
    """A JSON object with RunSpec's fields, all optional, without defaults and without `preset`."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        run_spec = handler.resolve_ref_schema(handler(RunSpec.__pydantic_core_schema__))
        fields = {
            name: {key: value for key, value in field.items() if key != "default"}
            for name, field in _request_fields(run_spec["properties"]).items()
            if name != "preset"
        }
        return {
            "type": "object",
            "title": "RunChanges",
            "properties": fields,
            "additionalProperties": False,
        }


RunRequest = Annotated[dict[str, Any], _AsRunSpec]
RunChanges = Annotated[dict[str, Any], _AsChanges]
