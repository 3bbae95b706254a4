"""Error messages as somebody reads them who uses the service for the first time."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from typer.testing import CliRunner

from service.cli.main import app
from service.domain.spec import RunSpec

ROWS = b'{"text": "a", "label": "hate"}\n{"text": "b", "label": "normal"}\n'
PLAN = "/v1/runs?dry_run=true"


def problem(answer, status: int = 422) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert content["type"].startswith("urn:fairtune:")
    if errors := content.get("errors"):
        first = errors[0]
        assert content["detail"].startswith(
            f"{first['pointer']}: {first['detail']}" if first["pointer"] else first["detail"]
        )
        pointers = [error["pointer"] for error in errors]
        assert len(set(pointers)) == len(pointers)
    return content


def upload(client, **fields):
    files = {"train": fields.pop("train", ROWS)}
    return client.post("/v1/datasets", data={"name": "d"} | fields, files=files)


@pytest.mark.parametrize(
    ("request_body", "instead"),
    [
        ({"json": {"name": "d"}}, ", not application/json"),
        ({"data": {"name": "d"}}, ", not application/x-www-form-urlencoded"),
        ({}, ""),
    ],
)
def test_an_upload_that_is_no_form_is_told_what_to_send(client, request_body, instead):
    content = problem(client.post("/v1/datasets", **request_body))
    assert content["detail"] == (
        f"send multipart/form-data with a name and a file{instead} (with curl: -F name=NAME -F "
        "train=@FILE)"
    )


@pytest.mark.parametrize("url", ["/v1/runs", PLAN, "/v1/keys"])
@pytest.mark.parametrize(
    "request_body", [{}, {"content": b"{}"}, {"data": {"a": "b"}}, {"json": [1]}, {"json": "a"}]
)
def test_a_body_that_is_no_object_is_told_what_to_send(client, url, request_body):
    content = problem(client.post(url, **request_body))
    assert content["detail"] == "send a JSON object, with Content-Type: application/json"


def test_an_empty_name_is_empty_and_not_missing(client):
    assert problem(upload(client, name=""))["detail"] == "/name: must not be empty"
    answer = client.post("/v1/datasets", files={"train": ROWS})
    assert problem(answer)["detail"] == "/name: is missing"
    content = problem(client.post(PLAN, json={"dataset_id": "d", "name": ""}))
    assert content["detail"] == "/name: must not be empty"


def test_a_file_where_text_belongs_and_the_other_way_round(client):
    answer = client.post(
        "/v1/datasets", data={"name": "d"}, files={"train": ROWS, "mapping": b"{}"}
    )
    assert problem(answer)["detail"] == (
        "/mapping: send text in this field, not a file (with curl: -F 'mapping=<FILE')"
    )
    answer = client.post("/v1/datasets", data={"name": "d", "train": "a"}, files={"test": ROWS})
    assert problem(answer)["detail"] == (
        "/train: send a file in this field (with curl: -F train=@FILE)"
    )


@pytest.mark.parametrize("content", ['{"text": "a"', '{"text": "a"\r\n', '{"text": "a"\n\n'])
def test_an_object_that_is_not_closed_ends_where_the_text_does(client, content):
    first = problem(upload(client, train=content.encode()))["errors"][0]
    assert first["pointer"] == "/train/lines/1"
    assert first["detail"].startswith("is not valid JSON at column 13")
    headers = {"Content-Type": "application/json"}
    answer = client.post(PLAN, content=content, headers=headers)
    assert "(line 1, column 13)" in problem(answer, 400)["detail"]


MAPPINGS = [
    ('{"txt": "a"}', "/mapping/txt: unknown field; mapping has text, label, group, id, source"),
    ('{"labels": "spam"}', "/mapping/labels: must be a list of labels, or an object such as"),
    ('{"labels": 5}', "/mapping/labels: must be a list of labels, or an object such as"),
    ('{"labels": [0.5, "b"]}', "/mapping/labels/0: must be a string"),
    ('{"labels": {"a": [], "b": "c"}}', "/mapping/labels/a: must be a string"),
    ('{"labels": ["a\\u0000", "b"]}', "/mapping/labels/0: the text contains NUL"),
    ('{"labels": ["a\\ud800", "b"]}', "/mapping/labels/0: must be a string without unpaired"),
    ('{"labels": []}', "/mapping/labels: a classifier needs at least two labels"),
    ('{"text": ""}', "/mapping/text: must not be empty"),
    ('{"text": ["a"]}', "/mapping/text: must be a string"),
    ("[]", "/mapping: must be an object"),
    ('"text"', "/mapping: must be an object"),
    (
        '{"text": "a"',
        "/mapping: is not JSON: the object or list is never closed (line 1, column 13)",
    ),
    ('{"text": "a", "text": "b"}', "/mapping: has the key 'text' twice"),
]


@pytest.mark.parametrize(("mapping", "detail"), MAPPINGS)
def test_a_mapping_has_one_error_that_names_the_field(client, mapping, detail):
    content = problem(upload(client, mapping=mapping))
    assert content["detail"].startswith(detail)
    assert len(content["errors"]) == 1


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"lora": 5}, "/lora: must be an object"),
        ({"training": [1]}, "/training: must be an object"),
        ({"evaluation": {"splits": []}}, "/evaluation/splits: must have at least 1 item"),
        ({"evaluation": {"splits": "test"}}, "/evaluation/splits: must be a list"),
        ({"fairness": {"caps": [5]}}, "/fairness/caps/0: must be an object"),
        ({"lora": {"target_modules": 5}}, "/lora/target_modules: must be a list, or 'all-linear'"),
        ({"lora": {"target_modules": ["a", 5]}}, "/lora/target_modules/1: must be a string"),
        ({"dataset_id": "ds_none"}, "/dataset_id: there is no dataset 'ds_none'"),
        ({"preset": "x"}, "/preset: no such preset"),
        ({"name": " \t "}, "/name: the text contains unprintable"),
        ({"name": "  "}, "/name: must not be blank"),
        ({"tags": ["a", " "]}, "/tags/1: must not be blank"),
        ({"seed": "1"}, "/seed: must be a whole number"),
        ({"seed": 2**40}, "/seed: must be less than 2147483648"),
        ({"lora": {"r": 0}}, "/lora/r: must be at least 1"),
        ({"lora": {"use_dora": 1}}, "/lora/use_dora: must be true or false"),
        ({"training": {"optim": "x"}}, "/training/optim: must be 'adamw_torch'"),
        ({"name": "a" * 201}, "/name: must have at most 200 characters"),
    ],
)
def test_a_specification_has_one_error_that_names_the_field(client, body, detail):
    content = problem(client.post(PLAN, json={"dataset_id": "d"} | body))
    assert content["detail"].startswith(detail)
    assert len(content["errors"]) == 1


def paths(model: type[BaseModel], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The location of every field of a specification."""
    found: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        found.append((*above, name))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += paths(field.annotation, (*above, name))
    return found


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(path=st.sampled_from(paths(RunSpec)), value=VALUES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_no_value_of_any_field_leaks_a_class_or_reports_twice(client, path, value):
    body: Any = value
    for name in reversed(path):
        body = {name: body}
    # In ASCII: an unpaired surrogate has no UTF-8.
    content = json.dumps({"dataset_id": "d"} | body)
    answer = client.post(PLAN, content=content, headers={"Content-Type": "application/json"})
    text = json.dumps(problem(answer))
    for word in ("Section", "RunSpec", "instance of", "dictionary", "pydantic", "validation,"):
        assert word not in text


def test_a_refusal_lists_a_limited_number_of_fields(client):
    content = problem(
        client.post(PLAN, json={"dataset_id": "d"} | {f"f{n}": 1 for n in range(999)})
    )
    assert len(content["errors"]) == 100
    assert content["detail"] == "/f0: unknown field (and at least 99 more)"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/runs", "GET, POST"),
        ("PATCH", "/v1/datasets", "GET, POST"),
        ("POST", "/healthz", "GET"),
    ],
)
def test_a_wrong_method_has_a_type_of_its_own(client, method, path, allowed):
    answer = client.request(method, path)
    content = problem(answer, 405)
    assert content["type"] == "urn:fairtune:method-not-allowed"
    assert answer.headers["Allow"].startswith(allowed)
    assert content["detail"] == f"the path supports {answer.headers['Allow']}, not {method}"


@pytest.mark.parametrize(
    ("arguments", "variables", "name"),
    [
        (["up", "--port", "99999"], {}, "--port"),
        (["api", "--port", "0"], {}, "--port"),
        (["api"], {"FAIRTUNE_PORT": "99999"}, "FAIRTUNE_PORT"),
    ],
)
def test_a_setting_is_named_as_it_was_set(arguments, variables, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments, env=variables)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{name}: ")


def test_keys_in_another_directory_propose_no_second_database_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["keys", "list"])
    assert result.exit_code == 1
    before, _, after = result.stderr.partition("to create one here, run: fairtune migrate")
    assert "set --data-dir or FAIRTUNE_DATA_DIR to its data directory" in before
    assert after
    assert not (tmp_path / ".fairtune").exists()


def test_a_refusal_of_the_command_line_has_no_pointer_into_a_body(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["migrate"]).exit_code == 0
    result = CliRunner().invoke(app, ["keys", "create", "", "--role", "admin"])
    assert result.exit_code == 1
    assert "/name" not in result.stderr
