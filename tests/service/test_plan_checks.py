"""What the plan of a run knows before the GPU: refusals and warnings by the rows and the steps."""

import json

import pytest

from service.domain.base_models import BUNDLED_MODEL


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
        assert "4 chats of the dataset have messages of weight 0" in answer.json()["detail"]
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


def text_rows(split: str, *labels: str) -> list[dict]:
    return [
        {"text": f"{split} {number}", "label": label, "group": "g"}
        for number, label in enumerate(labels)
    ]


BOTH = ("hate", "normal") * 20


def plan(client, dataset: str, **body) -> dict:
    request = {"dataset_id": dataset, "base_model": "tiny", "fairness": {"caps": []}} | body
    request["training"] = {"warmup_steps": 0} | body.get("training", {})
    answer = client.post("/v1/runs?dry_run=true", json=request)
    assert answer.status_code == 200, answer.text
    planned = answer.json()
    assert planned["warnings"] == [warning["detail"] for warning in planned["coded_warnings"]]
    codes = {warning["code"]: warning["detail"] for warning in planned["coded_warnings"]}
    assert len(codes) == len(planned["warnings"])
    if request["base_model"] == "tiny":
        assert "has no model tiny: " in codes.pop("model_missing")
    return codes


@pytest.fixture
def whole(client) -> str:
    splits = ("train", "validation", "test")
    return upload(client, **{split: text_rows(split, *BOTH) for split in splits})


def every(steps: int) -> dict:
    strategies = {"eval_strategy": "steps", "save_strategy": "steps"}
    return strategies | {"eval_steps": steps, "save_steps": steps}


@pytest.mark.parametrize(
    ("training", "fairness", "says"),
    [
        (every(1000) | {"max_steps": 15}, {}, "the one after the last of 15 steps: no checkpoint"),
        (every(15) | {"max_steps": 15}, {}, "set training.eval_steps and save_steps below 15"),
        (every(14) | {"max_steps": 15}, {}, None),
        ({"num_train_epochs": 1}, {"select": "best_f1_within_caps"}, "num_train_epochs above 1"),
        ({"num_train_epochs": 2}, {"select": "best_f1_within_caps"}, None),
        ({"num_train_epochs": 1, "early_stopping_patience": 0}, {}, None),
        (
            {"eval_strategy": "no", "early_stopping_patience": 0},
            {},
            "load_best_model_at_end has no effect",
        ),
    ],
)
def test_a_plan_knows_that_nothing_will_be_chosen(client, whole, training, fairness, says):
    codes = plan(client, whole, training=training, fairness={"caps": []} | fairness)
    assert ("no_choice" in codes) == (says is not None)
    assert says is None or says in codes["no_choice"]


def test_a_plan_without_a_flaw_has_no_warning(client, whole):
    assert plan(client, whole) == {}


@pytest.mark.parametrize("name", [BUNDLED_MODEL, "here", "hub/model"])
def test_a_plan_knows_the_models_that_are_there(client, whole, settings, name):
    (settings.models_dir / "here").mkdir(parents=True)
    (settings.models_dir / "here" / "config.json").write_text("{}")
    assert plan(client, whole, base_model=name) == {}


@pytest.mark.parametrize(
    ("test", "code", "says"),
    [
        (["normal"] * 9, "no_positives", "no row of test is labelled 'hate': recall, F1 and AUC"),
        (["hate"] * 9, "no_negatives", "every row of test is labelled 'hate': false positive"),
        (["hate", "normal"], None, None),
    ],
)
def test_a_plan_knows_that_a_class_is_missing_where_it_is_measured(client, test, code, says):
    rows = {"train": text_rows("train", *BOTH), "validation": text_rows("validation", *BOTH)}
    codes = plan(client, upload(client, **rows, test=text_rows("test", *test)))
    assert says is None or says in codes.pop(code)
    assert set(codes) <= {"missing_class"}


def test_a_plan_knows_other_classes_that_are_missing(client):
    rows = {
        "train": text_rows("train", "a", "b", "c", "d"),
        "test": text_rows("test", "a", "b"),
    }
    files = {split: "".join(json.dumps(row) + "\n" for row in part) for split, part in rows.items()}
    answer = client.post(
        "/v1/datasets",
        data={"name": "d", "mapping": '{"labels": ["a", "b", "c", "d"]}'},
        files=files,
    )
    dataset = answer.json()
    assert [warning["code"] for warning in dataset["warnings"]] == ["missing_class"]
    codes = plan(
        client,
        dataset["id"],
        fairness={"caps": [], "positive_label": "a"},
        template="label_only",
    )
    assert codes["missing_class"] == (
        "no row of test is labelled 'c' or 'd': test says nothing about the class"
    )


@pytest.mark.parametrize(
    "request_body",
    [
        {"evaluation": {"threshold": "fitted"}},
        {"fairness": {"caps": [], "select": "best_f1_within_caps"}},
    ],
)
def test_a_plan_knows_that_it_chooses_on_one_class(client, request_body):
    rows = {"train": text_rows("train", *BOTH), "test": text_rows("test", *BOTH)}
    dataset = upload(client, **rows, validation=text_rows("validation", *["hate"] * 9))
    assert "chosen on one class" in plan(client, dataset, **request_body)["one_class"]
    assert "one_class" not in plan(client, dataset)


def test_a_plan_knows_that_unlabelled_texts_are_not_evaluated(client):
    rows = {"train": text_rows("train", *BOTH), "test": text_rows("test", *BOTH)}
    unlabelled = [{"text": f"v{number}", "group": "g"} for number in range(9)]
    dataset = upload(client, **rows, validation=unlabelled)
    assert "rows of the validation split have no labels" in plan(client, dataset)["no_validation"]


@pytest.mark.parametrize(
    ("template", "baseline", "length", "warns"),
    [
        ("hate_speech_policy", None, 512, True),
        ("hate_speech_simple", "hate_speech_policy", 512, True),
        ("hate_speech_policy", None, 1024, False),
        ("hate_speech_simple", None, 64, False),
    ],
)
def test_an_instruction_that_does_not_fit_is_known(
    client, dataset_id, template, baseline, length, warns
):
    body = {
        "dataset_id": dataset_id,
        "template": template,
        "evaluation": {"baseline_template": baseline},
        "training": {"max_seq_length": length},
    }
    plan = client.post("/v1/runs?dry_run=true", json=body)
    assert plan.status_code == 200, plan.text
    details = [
        text for text in plan.json()["warnings"] if "the instruction of the template" in text
    ]
    assert bool(details) == warns
    assert all("hate_speech_policy" in detail and str(length) in detail for detail in details)
