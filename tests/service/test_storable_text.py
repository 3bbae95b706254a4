"""NUL and unpaired surrogates are answered alike by both databases, wherever they come."""

import json

import pytest

pytestmark = pytest.mark.both_databases

QUERIES = [
    "/v1/runs?name=%00",
    "/v1/runs?tag=a%00b",
    "/v1/runs?dataset_id=%00",
    "/v1/runs/{run}/metrics?name=loss%00",
    "/v1/runs/{run}/artifacts?path=%00",
    "/v1/compare?runs=a%00,b",
]
PATHS = [
    "/v1/runs/%00",
    "/v1/runs/{run}%00",
    "/v1/datasets/%00",
    "/v1/runs/{run}/artifacts/a%00b",
    "/v1/runs/{run}/evaluations/eval_%00/predictions",
    "/v1/promotions/a%00/b",
    "/v1/keys/%00",
]
BODIES = [
    ("/v1/runs", {"name": "TEXT"}, "/name"),
    ("/v1/runs", {"tags": ["a", "TEXT"]}, "/tags/1"),
    ("/v1/runs/{run}/clone", {"name": "TEXT"}, "/name"),
    ("/v1/runs/{run}/predictions", {"texts": ["a", "TEXT"]}, "/texts/1"),
    ("/v1/runs/{run}/evaluations", {"template": "TEXT"}, "/template"),
    ("/v1/runs/{run}/promote", {"name": "TEXT", "stage": "TEXT"}, "/name"),
    ("/v1/keys", {"name": "TEXT", "role": "admin"}, "/name"),
]


@pytest.mark.parametrize("query", QUERIES)
def test_nul_in_a_query_is_refused(client, run_id, query):
    answer = client.get(query.format(run=run_id))
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"].startswith("/query/")


@pytest.mark.parametrize("path", PATHS)
def test_nothing_has_an_identifier_with_nul(client, run_id, path):
    assert client.get(path.format(run=run_id)).status_code in (404, 405)


@pytest.mark.parametrize("text", ["a\\u0000b", "\\ud800", "x\\udfffy"])
@pytest.mark.parametrize(("path", "body", "pointer"), BODIES)
def test_what_no_database_can_store_is_refused_in_a_body(client, run_id, path, body, pointer, text):
    content = json.dumps(body).replace("TEXT", text)
    answer = client.post(
        path.format(run=run_id), content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert "NUL or an unpaired surrogate" in answer.json()["detail"]


def test_a_pair_of_surrogates_is_a_character(client, dataset_id):
    content = json.dumps({"dataset_id": dataset_id, "base_model": "tiny", "tags": ["\U0001f600"]})
    assert "\\ud83d" in content
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/runs", content=content, headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.json()["spec"]["tags"] == ["\U0001f600"]
