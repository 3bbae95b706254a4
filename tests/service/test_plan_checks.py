"""What the plan of a run knows before the GPU: refusals and warnings by the rows and the steps."""

import json

import pytest


def upload(client, **splits) -> str:
    """Create a dataset of the rows of each split."""
    files = {
        split: "".join(json.dumps(row) + "\n" for row in rows).encode()
        for split, rows in splits.items()
    }
    answer = client.post("/v1/datasets", data={"name": "d"}, files=files)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def chat(number: int, weight: int) -> dict:
    words = ("BAD", "GOOD")
    return {
        "label": ("hate", "normal")[number % 2],
        "messages": [
            {"role": "user", "content": f"post {number}"},
            {"role": "assistant", "content": "hm", "weight": weight},
            {"role": "user", "content": "so?"},
            {"role": "assistant", "content": words[number % 2], "weight": 1},
        ],
    }


@pytest.mark.parametrize(("weight", "status"), [(0, 422), (1, 200)])
def test_messages_of_weight_0_are_not_learned(client, weight, status):
    dataset = upload(client, train=[chat(number, weight) for number in range(4)])
    preview = client.get(f"/v1/datasets/{dataset}/preview").json()
    assert [turn["weight"] for turn in preview[0]["messages"]] == [1, weight, 1, 1]
    body = {"dataset_id": dataset, "base_model": "tiny", "fairness": {"caps": []}}
    url = "/v1/runs?dry_run=true"
    answer = client.post(url, json=body | {"training": {"train_on": "all"}})
    assert answer.status_code == status, answer.text
    if weight == 0:
        assert answer.json()["errors"][0]["pointer"] == "/training/train_on"
        assert "4 of the dataset's chats have messages of weight 0" in answer.json()["detail"]
    answer = client.post(url, json=body | {"training": {"train_on": "completion"}})
    assert answer.status_code == 200, answer.text


def test_a_whole_number_may_have_a_fraction_of_zero(client, dataset_id):
    training = '{"max_steps": 5.0, "warmup_steps": 0e0, "learning_rate": 1.0}'
    content = f'{{"dataset_id": "{dataset_id}", "base_model": "tiny", "training": {training}}}'
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/runs?dry_run=true", content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["total_steps"] == 5
    assert answer.json()["spec"]["training"]["max_steps"] == 5
    refused = content.replace("5.0", "5.5")
    answer = client.post("/v1/runs?dry_run=true", content=refused, headers=headers)
    assert answer.json()["errors"][0]["pointer"] == "/training/max_steps"
