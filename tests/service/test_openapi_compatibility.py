"""The document differs from that of 0.1.0 only in texts and examples."""

import json
from pathlib import Path
from typing import TypeGuard

import pytest

from service.api.app import create_app
from service.settings import Settings

KEPT = Path(__file__).parent / "data" / "openapi_0_1_0.json"
OPEN = "/properties/format/enum"
"""The dataset formats that an upload may name: a new one breaks no client."""
OPTIONAL = {"/components/schemas/PredictionRequest/required"}
"""Fields of requests that have become optional, which breaks no client."""
TEXTS = {"description", "summary", "example", "examples", "title", "info", "tags", "externalDocs"}


def structure(node: object, *, names: bool = False) -> object:
    """The document without what only a reader sees; `names`: its keys are names, not keywords."""
    if isinstance(node, list):
        return [structure(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: structure(value, names=key in ("properties", "schemas", "paths", "$defs"))
        for key, value in node.items()
        if names or key not in TEXTS
    }


def differences(before: object, after: object, pointer: str = "") -> list[str]:
    """Pointers at what 0.1.0 had and is changed or gone; what is new does not count.

    So a schema may gain a keyword for a rule that the code has always enforced.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        gone = [
            f"{pointer}/{key} is gone"
            for key in before
            if key not in after and f"{pointer}/{key}" not in OPTIONAL
        ]
        kept = [key for key in before if key in after]
        deeper = (differences(before[key], after[key], f"{pointer}/{key}") for key in kept)
        return [*gone, *(line for lines in deeper for line in lines)]
    if pointer.endswith(OPEN) and isinstance(before, list) and isinstance(after, list):
        after = [value for value in after if value in before]
    if pointer.endswith("/parameters") and isinstance(before, list) and isinstance(after, list):
        # A new parameter that may be left out breaks no client.
        old = {(parameter["in"], parameter["name"]) for parameter in before}
        after = [
            parameter
            for parameter in after
            if (parameter["in"], parameter["name"]) in old or parameter.get("required")
        ]
    if _are_schemas(before) and _are_schemas(after) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        deeper = (differences(*pair, f"{pointer}/{number}") for number, pair in pairs)
        return [line for lines in deeper for line in lines]
    return [] if before == after else [f"{pointer}: {before!r} became {after!r}"]


def _are_schemas(value: object) -> TypeGuard[list[dict]]:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


@pytest.fixture(scope="module")
def document(tmp_path_factory) -> dict:
    app = create_app(Settings(data_dir=tmp_path_factory.mktemp("data")))
    return json.loads(json.dumps(app.openapi()))


def test_paths_parameters_and_schemas_are_those_of_0_1_0(document):
    before = json.loads(KEPT.read_text())
    assert len(before["paths"]) > 30
    assert len(before["components"]["schemas"]) > 50
    assert differences(before, structure(document)) == []


def test_a_change_would_be_seen():
    def document(*parameters: dict) -> dict:
        return {"paths": {"/a": {"get": {"parameters": list(parameters)}}}}

    one = {"in": "query", "name": "n", "schema": {"type": "x"}}
    more = {"in": "query", "name": "m"}
    before, after = document(one), document({**one, "schema": {"type": "y"}})
    assert differences(before, document(one, more)) == []
    assert differences(before, document(one, {**more, "required": True})) != []
    assert differences(before, document(more)) != []
    assert differences(before, before) == []
    assert differences(before, document({**one, "schema": {"type": "x", "pattern": "y"}})) == []
    assert differences(before, after) != []
    assert differences(before, {"paths": {}}) == ["/paths//a is gone"]
    described = {"properties": {"title": {"type": "string", "title": "Title"}}}
    assert structure(described) == {"properties": {"title": {"type": "string"}}}
