"""The OpenAPI document is whole: a client can be generated from it."""

import pytest

from service.api.app import create_app
from service.settings import Settings


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("data"))).openapi()


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_reference_leads_somewhere(document):
    found = set(references(document))
    assert found
    for reference in found:
        assert reference.startswith("#/components/schemas/")
        assert reference.rsplit("/", 1)[1] in document["components"]["schemas"]


def test_every_call_of_the_design_is_there(document):
    calls = {name for name, _ in operations(document)}
    run = "/v1/runs/{run_id}"
    assert {
        "POST /v1/datasets",
        "GET /v1/datasets",
        "GET /v1/datasets/{dataset_id}",
        "POST /v1/runs",
        "GET /v1/runs",
        f"GET {run}",
        f"POST {run}/cancel",
        f"GET {run}/events",
        f"GET {run}/metrics",
        f"GET {run}/logs",
        f"GET {run}/checkpoints",
        f"GET {run}/artifacts",
        f"GET {run}/artifacts/{{path}}",
        f"GET {run}/evaluations",
        f"GET {run}/bias-report",
        "GET /v1/presets",
        "GET /v1/templates",
        "GET /v1/models",
        "GET /healthz",
        "GET /readyz",
    } <= calls


def test_every_call_says_what_it_does_and_how_it_refuses(document):
    for name, operation in operations(document):
        assert operation.get("summary"), name
        assert operation["tags"], name
        for status, answer in operation["responses"].items():
            if status.startswith("4"):
                assert list(answer["content"]) == ["application/problem+json"], name
        if operation.get("parameters") or operation.get("requestBody"):
            assert "422" in operation["responses"], name
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_what_reads_a_body_says_that_it_may_be_too_large_or_too_slow(document):
    """Also where a call takes none: it is read, and refused."""
    for name, operation in operations(document):
        assert ({"408", "413"} <= set(operation["responses"])) is not name.startswith("GET "), name


def test_downloads_say_what_ranges_and_entity_tags_do(document):
    run = "/v1/runs/{run_id}"
    for path in (
        f"{run}/artifacts/{{path}}",
        f"{run}/checkpoints/{{step}}/download",
        f"{run}/evaluations/{{eval_id}}/predictions",
    ):
        answers = document["paths"][path]["get"]["responses"]
        assert list(answers["206"]["content"]) == ["application/octet-stream"]
        assert "content" not in answers["304"]
        assert list(answers["416"]["content"]) == ["application/problem+json"]


def test_a_run_can_be_started_from_an_example(document):
    content = document["paths"]["/v1/runs"]["post"]["requestBody"]["content"]["application/json"]
    assert "quick_test" in str(content["examples"])
    properties = content["schema"]["properties"]
    assert {"dataset_id", "preset", "lora", "training", "fairness"} <= set(properties)
    lora = document["components"]["schemas"]["LoraSection"]["properties"]
    assert lora["r"]["default"] == 32


def test_the_examples_are_valid(client, document, dataset_id):
    content = document["paths"]["/v1/runs"]["post"]["requestBody"]["content"]["application/json"]
    for name, example in content["examples"].items():
        body = example["value"] | {"dataset_id": dataset_id}
        assert client.post("/v1/runs?dry_run=true", json=body).status_code == 200, name
