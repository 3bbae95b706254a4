"""The OpenAPI document is complete: a client can be generated from it, and a person can read it."""

import re

import pytest

from service.api import examples
from service.api.app import create_app
from service.domain.evaluation import EvaluationRequest
from service.domain.merge import MergeRequest
from service.domain.release import PromotionRequest
from service.settings import Settings
from service.usecases.reports.options import ReportRequest


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
        f"DELETE {run}",
        f"POST {run}/cancel",
        f"GET {run}/events",
        f"GET {run}/metrics",
        f"GET {run}/logs",
        f"GET {run}/checkpoints",
        f"GET {run}/checkpoints/{{step}}",
        f"GET {run}/checkpoints/{{step}}/download",
        f"GET {run}/adapter/download",
        f"GET {run}/artifacts",
        f"GET {run}/artifacts/{{path}}",
        f"GET {run}/evaluations",
        f"POST {run}/evaluations",
        f"GET {run}/evaluations/{{eval_id}}",
        f"GET {run}/evaluations/{{eval_id}}/logs",
        f"POST {run}/evaluations/{{eval_id}}/cancel",
        f"POST {run}/merged",
        f"GET {run}/merged",
        f"GET {run}/merged/download",
        f"GET {run}/merged/logs",
        f"POST {run}/merged/cancel",
        f"DELETE {run}/merged",
        f"POST {run}/predictions",
        f"GET {run}/predictions",
        f"GET {run}/predictions/{{prediction_id}}",
        f"GET {run}/bias-report",
        f"POST {run}/evaluations/{{eval_id}}/reports",
        "GET /v1/compare",
        f"POST {run}/promote",
        "GET /v1/promotions",
        "GET /v1/promotions/{name}/{stage}",
        "GET /v1/presets",
        "GET /v1/templates",
        "GET /v1/models",
        "GET /healthz",
        "GET /readyz",
    } <= calls


def test_every_call_says_what_it_does_and_how_it_refuses(document):
    for name, operation in operations(document):
        assert operation["tags"], name
        for status, answer in operation["responses"].items():
            if status.startswith("4"):
                assert list(answer["content"]) == ["application/problem+json"], name
        if operation.get("parameters") or operation.get("requestBody"):
            assert "422" in operation["responses"], name
    assert "HTTPValidationError" not in document["components"]["schemas"]


# Verbs that open a summary: imperative sentences, not titles generated from function names.
VERBS = frozenset(
    {"Cancel", "Check", "Classify", "Clone", "Compare", "Compute", "Create", "Delete", "Download"}
    | {
        "Get",
        "Import",
        "List",
        "Merge",
        "Pause",
        "Preview",
        "Promote",
        "Read",
        "Resume",
        "Retry",
        "Revoke",
    }
    | {"Start"}
)


def test_summaries_are_imperative_sentences(document):
    summaries = [operation["summary"] for _, operation in operations(document)]
    assert len(set(summaries)) == len(summaries)
    for summary in summaries:
        first, *others = summary.split()
        assert first in VERBS, summary
        assert others, summary
        assert summary == summary[0] + summary[1:].replace("Prometheus", "").lower() or (
            re.search(r"API|Prometheus", summary)
        ), f"{summary}: write a sentence, not a title"
        assert not summary.endswith("."), summary


def undescribed(schema, name, schemas):
    """Pointers at the properties of a schema, also nested ones, that have no description.

    A property whose description is that of the schema that it refers to does not repeat it.
    """
    for key, value in schema.get("properties", {}).items():
        target = schemas.get(value.get("$ref", "").rpartition("/")[2], {})
        if not (value.get("description") or target.get("description") or "").strip():
            yield f"{name}/{key}"
        yield from undescribed(value, f"{name}/{key}", schemas)


def test_every_operation_parameter_and_field_has_a_description(document):
    missing = []
    schemas = document["components"]["schemas"]
    for name, operation in operations(document):
        if not operation.get("description", "").strip():
            missing.append(name)
        missing += [
            f"{name} {parameter['name']}"
            for parameter in operation.get("parameters", [])
            if not parameter.get("description", "").strip()
        ]
        for media_type in operation.get("requestBody", {}).get("content", {}).values():
            missing += undescribed(media_type["schema"], name, schemas)
    for name, schema in schemas.items():
        missing += undescribed(schema, name, schemas)
    assert missing == []


def test_a_missing_description_would_be_seen():
    schema = {"properties": {"a": {"description": "A."}, "b": {"properties": {"c": {}}}}}
    assert list(undescribed(schema, "S", {})) == ["S/b", "S/b/c"]
    refers = {"properties": {"a": {"$ref": "#/components/schemas/A"}}}
    assert list(undescribed(refers, "S", {"A": {}})) == ["S/a"]
    assert list(undescribed(refers, "S", {"A": {"description": "An A."}})) == []


def test_what_reads_a_body_says_that_it_may_be_too_large_or_too_slow(document):
    """Also where a call takes none: it is read, and refused."""
    for name, operation in operations(document):
        assert ({"408", "413"} <= set(operation["responses"])) is not name.startswith("GET "), name


def test_metrics_and_predictions_name_every_content_type(document):
    def types(path: str) -> set[str]:
        return set(document["paths"][path]["get"]["responses"]["200"]["content"])

    assert types("/metrics") == {"text/plain", "application/openmetrics-text"}
    predictions = "/v1/runs/{run_id}/evaluations/{eval_id}/predictions"
    assert "application/vnd.apache.parquet" in types(predictions)


def test_downloads_say_what_ranges_and_entity_tags_do(document):
    run = "/v1/runs/{run_id}"
    for path in (
        f"{run}/artifacts/{{path}}",
        f"{run}/checkpoints/{{step}}/download",
        f"{run}/evaluations/{{eval_id}}/predictions",
    ):
        answers = document["paths"][path]["get"]["responses"]
        special = "application/vnd.apache.parquet" if path.endswith("/predictions") else "*/*"
        types = ["application/octet-stream", special]
        assert list(answers["206"]["content"]) == types
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


def test_the_examples_of_datasets_are_valid_and_answered_as_the_document_says(client, document):
    operation = document["paths"]["/v1/datasets"]["post"]
    content = operation["requestBody"]["content"]["multipart/form-data"]
    assert content["examples"] == examples.DATASETS
    answers = []
    for example in content["examples"].values():
        fields = dict(example["value"])
        files = {
            name: (name, fields.pop(name)) for name in ("train", "test", "file") if name in fields
        }
        answers.append(client.post("/v1/datasets", data=fields, files=files))
    assert [answer.status_code for answer in answers] == [201, 201]
    documented = document["components"]["schemas"]["DatasetView"]["example"]
    varying = {name: answers[0].json()[name] for name in ("id", "created_at")}
    assert answers[0].json() == documented | varying


def test_the_examples_of_evaluations_are_valid(document):
    path = "/v1/runs/{run_id}/evaluations"
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    assert len(content["examples"]) == 3
    for example in content["examples"].values():
        EvaluationRequest.model_validate(example["value"])
    properties = document["components"]["schemas"]["EvaluationRequest"]["properties"]
    assert properties["target"]["enum"] == ["base", "adapter", "checkpoint", "merged"]
    assert "required" not in document["components"]["schemas"]["EvaluationRequest"]


def test_the_examples_of_merges_are_valid(document):
    path = "/v1/runs/{run_id}/merged"
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    assert len(content["examples"]) == 3
    for example in content["examples"].values():
        MergeRequest.model_validate(example["value"])
    assert "required" not in document["components"]["schemas"]["MergeRequest"]
    tar = document["paths"][f"{path}/download"]["get"]["responses"]
    assert "application/x-tar" in tar["200"]["content"]
    assert "content" not in tar["304"]


def test_reports_and_comparisons_are_described_in_every_form(document):
    schemas = document["components"]["schemas"]
    run = "/v1/runs/{run_id}"
    for path, method, name, forms in (
        (f"{run}/bias-report", "get", "BiasReport", {"html", "csv"}),
        (f"{run}/evaluations/{{eval_id}}/reports", "post", "BiasReport", {"html", "csv"}),
        ("/v1/compare", "get", "Comparison", {"html"}),
    ):
        answers = document["paths"][path][method]["responses"]
        assert {"404", "406", "409", "422"} <= set(answers), path
        content = answers["200"]["content"]
        assert set(content) == {"application/json", *(f"text/{form}" for form in forms)}
        assert content["application/json"]["schema"]["$ref"].endswith(f"/{name}")
        assert "schema_version" in schemas[name]["properties"]
    for part in ("CapVerdict", "AtThreshold", "Calibration", "Compared", "Pair", "Paired"):
        assert all("description" in one for one in schemas[part]["properties"].values()), part


def test_what_a_report_is_asked_for_with_has_the_run_s_defaults_alone(document):
    content = document["paths"]["/v1/runs/{run_id}/evaluations/{eval_id}/reports"]["post"]
    examples = content["requestBody"]["content"]["application/json"]["examples"]
    for example in examples.values():
        ReportRequest.model_validate(example["value"])
    properties = document["components"]["schemas"]["ReportRequest"]["properties"]
    assert set(properties) == set(ReportRequest.model_fields)
    assert not any("default" in one for one in properties.values())


def test_promotions_and_what_hinders_them_are_described(document):
    operation = document["paths"]["/v1/runs/{run_id}/promote"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    for example in content["examples"].values():
        PromotionRequest.model_validate(example["value"])
    assert {"200", "201", "403", "404", "409", "422"} <= set(operation["responses"])
    assert "hindrances" in document["components"]["schemas"]["Problem"]["properties"]
    assert "needed_further" in document["components"]["schemas"]["Hindrance"]["properties"]
