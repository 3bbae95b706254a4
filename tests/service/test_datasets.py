"""POST /v1/datasets and what it refuses."""

import json
from pathlib import Path

import pytest

from service.ops.capacity_limiter import CapacityLimiter
from service.usecases import datasets

GOOD = b'{"text": "a", "label": "hate", "group": "g"}\n{"text": "b", "label": "normal"}\n'


def post(client, files, headers=None, **fields):
    return client.post("/v1/datasets", data={"name": "d", **fields}, files=files, headers=headers)


def test_one_file_per_split(client, sample):
    answer = post(client, sample)
    assert answer.status_code == 201
    made = answer.json()
    assert made["id"].startswith("ds_")
    assert answer.headers["Location"] == f"/v1/datasets/{made['id']}"
    assert {split: part["rows"] for split, part in made["stats"]["splits"].items()} == {
        split: content.count(b"\n") for split, content in sample.items()
    }
    assert client.get(f"/v1/datasets/{made['id']}").json() == made
    assert client.get("/v1/datasets").json()["data"] == [made]
    rows = client.get(f"/v1/datasets/{made['id']}/preview", params={"split": "test", "limit": 2})
    first = json.loads(sample["test"].splitlines()[0])
    assert rows.json()[0]["text"] == first["text"]
    assert [row["split"] for row in rows.json()] == ["test", "test"]


def test_uploads_take_turns(client, sample, monkeypatch):
    monkeypatch.setattr(datasets, "LIMITER", CapacityLimiter("uploads", 0, 0, 0))
    answer = post(client, sample)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairtune:busy")
    assert int(answer.headers["Retry-After"]) > 0
    assert "uploads" in answer.json()["detail"]
    assert client.get("/v1/datasets").json()["data"] == []
    monkeypatch.undo()
    assert post(client, sample).status_code == 201


def test_one_file_with_a_split_column(client):
    lines = [
        {"text": f"t{n}", "label": label, "split": split}
        for n, (label, split) in enumerate(
            [("hate", "train"), ("normal", "train"), ("hate", "val"), ("normal", "test")]
        )
    ]
    body = "\n".join(json.dumps(line) for line in lines).encode()
    splits = post(client, {"file": body}).json()["stats"]["splits"]
    assert {name: part["rows"] for name, part in splits.items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }


def test_chats_need_neither_label_nor_group(client):
    chat = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    made = post(client, {"train": (json.dumps(chat) + "\n").encode() * 3})
    assert made.status_code == 201, made.text
    assert made.json()["stats"]["kind"] == "messages"
    assert made.json()["stats"]["has_labels"] is False


@pytest.mark.parametrize(
    ("files", "pointer", "says"),
    [
        ({"train": b'{"body": "a", "label": "hate"}\n'}, "/train/lines/1/text", "text"),
        (
            {"train": GOOD + b'{"text": "c", "label": "banana"}\n'},
            "/train/lines/3/label",
            "mapping.labels",
        ),
        ({"train": GOOD + b'{"text": " ", "label": "hate"}\n'}, "/train/lines/3/text", "empty"),
        ({"train": GOOD + b'{"text": "\xff", "label": "hate"}\n'}, "/train/lines/3", "UTF-8"),
        ({"train": b""}, "/train", "no rows"),
        ({"train": GOOD, "test": b"\n"}, "/test", "no rows"),
        ({"train": GOOD.replace(b"normal", b"hate")}, "/train", "two labels"),
        ({"train": GOOD, "file": GOOD}, "/file", "not both"),
        ({"file": GOOD}, None, "split"),
    ],
)
def test_bad_files_are_refused_and_leave_nothing(client, settings, files, pointer, says):
    answer = post(client, files)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:fairtune:invalid-request"
    if pointer is not None:
        assert pointer in [error["pointer"] for error in problem["errors"]]
    assert says.lower() in json.dumps(problem).lower()
    assert client.get("/v1/datasets").json()["data"] == []
    store = Path(settings.artifacts_url.removeprefix("file://"))
    assert [path.name for path in store.rglob("*")] == [".fairtune-store"]


def test_texts_without_any_label_are_refused(client):
    answer = post(client, {"train": b'{"text": "a"}\n{"text": "b"}\n'})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/train")
    assert "mapping.label" in answer.json()["detail"]


@pytest.mark.parametrize("name", [" ", "a\0b"])
def test_a_name_that_nobody_can_read_is_refused(client, settings, name):
    answer = client.post("/v1/datasets", data={"name": name}, files={"train": GOOD})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/name")


def test_form_fields_that_are_unknown_or_doubled_are_refused(client):
    answer = post(client, {"train": GOOD, "valid": GOOD})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/valid")
    assert "validation" in answer.json()["detail"]
    twice = client.post(
        "/v1/datasets",
        data={"name": "d"},
        files=[("train", ("a", GOOD)), ("train", ("b", GOOD))],
    )
    assert (twice.status_code, twice.json()["errors"][0]["pointer"]) == (422, "/train")
    assert client.get("/v1/datasets").json()["data"] == []


def test_a_bad_mapping_names_its_field(client):
    answer = post(client, {"train": GOOD}, mapping='{"txt": "a"}')
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/mapping/txt"


def test_dropping_lists_what_it_dropped(client):
    bad = GOOD + b'{"text": "", "label": "hate"}\n'
    made = post(client, {"train": bad}, on_invalid="drop").json()
    assert made["dropped"]["total"] == 1
    assert made["dropped"]["rows"][0]["pointer"] == "/train/lines/3/text"
    assert made["stats"]["rows"] == 2


def test_too_large_an_upload_is_refused(settings, monkeypatch):
    from fastapi.testclient import TestClient

    from service.api.app import create_app

    small = settings.model_copy(update={"max_upload_bytes": 1000, "max_body_bytes": 1000})
    with TestClient(create_app(small), base_url="http://127.0.0.1") as client:
        answer = post(client, {"train": GOOD * 100})
        assert answer.status_code == 413
        assert answer.json()["type"] == "urn:fairtune:too-large"

        def unannounced():
            yield b"x" * 2000

        answer = client.post("/v1/runs", content=unannounced())
        assert answer.status_code == 413


def test_the_same_key_makes_one_dataset(client):
    key = {"Idempotency-Key": "k"}
    first = post(client, {"train": GOOD}, headers=key)
    again = post(client, {"train": GOOD}, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    other = post(client, {"train": GOOD + GOOD.replace(b'"a"', b'"c"')}, headers=key)
    assert other.status_code == 422
    # Without a key the same rows make another dataset, over the same blob.
    third = post(client, {"train": GOOD}).json()
    assert third["id"] != first.json()["id"]
    assert third["content_hash"] == first.json()["content_hash"]
