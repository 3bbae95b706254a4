"""A dataset for evaluations needs no training rows, and its rows no labels."""

import json

import pytest

from service.domain.states import JobStatus
from service.store import jobs

LABELLED = [
    {"text": f"a post {n}", "label": label, "group": "x"}
    for n, label in enumerate(["hate", "normal"] * 3)
]
CHAT = [
    {
        "messages": [
            {"role": "user", "content": f"a chat {n}"},
            {"role": "assistant", "content": label},
        ],
        "label": label,
    }
    for n, label in enumerate(["hate", "normal"])
]
SUITES = {
    "labelled": LABELLED,
    "of one class": LABELLED[::2],
    "without labels": [{"text": "a post"}, {"text": "another"}],
    "chats": CHAT,
}


def lines(rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def upload(client, **files):
    return client.post(
        "/v1/datasets",
        data={"name": "a suite"},
        files={name: lines(rows) for name, rows in files.items()},
    )


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("field", ["test", "validation", "file"])
def test_it_is_accepted_shown_and_refused_for_training_alone(client, suite, field):
    rows = SUITES[suite]
    if field == "file":
        rows = [row | {"split": "test"} for row in rows]
    answer = upload(client, **{field: rows})
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    split = "test" if field == "file" else field
    assert list(dataset["stats"]["splits"]) == [split]
    assert dataset["stats"]["splits"][split]["rows"] == len(rows)
    codes = {warning["code"] for warning in dataset["warnings"]}
    assert "no_train" in codes
    assert ("no_labels" in codes) == (suite == "without labels")
    assert client.get(f"/v1/datasets/{dataset['id']}").json() == dataset
    assert len(client.get(f"/v1/datasets/{dataset['id']}/preview").json()) == len(rows)
    body = {"dataset_id": dataset["id"], "base_model": "tiny"}
    for query in ("", "?dry_run=true"):
        refused = client.post(f"/v1/runs{query}", json=body)
        assert refused.status_code == 422
        (error,) = refused.json()["errors"]
        assert error["pointer"] == "/dataset_id"
        assert "has no training rows" in error["detail"]


@pytest.mark.parametrize("suite", ["labelled", "of one class", "without labels"])
def test_a_run_is_evaluated_on_it(client, context, worker, run_id, suite):
    with context.database.write() as session:
        job = jobs.get(session, worker.job_id)
        assert jobs.switch_status(
            session, job, JobStatus.SUCCEEDED, expected_token=worker.current.token
        )
    dataset_id = upload(client, test=SUITES[suite]).json()["id"]
    body = {"target": "base", "dataset_id": dataset_id, "split": "test"}
    answer = client.post(f"/v1/runs/{run_id}/evaluations", json=body)
    assert answer.status_code == 201, answer.text
    clone = client.post(f"/v1/runs/{run_id}/clone", json={"dataset_id": dataset_id})
    assert (clone.status_code, clone.json()["errors"][0]["pointer"]) == (422, "/dataset_id")


def test_an_upload_without_any_file_is_refused(client):
    answer = client.post("/v1/datasets", files={"name": (None, "nothing")})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/train"
