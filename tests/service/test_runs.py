"""POST /v1/runs: presets, overrides, refusals, idempotency; listing and cancelling."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.queue import celery_app


def submit(client, headers=None, **body):
    content = json.dumps(body)  # in ASCII: an unpaired surrogate has no UTF-8
    headers = {"content-type": "application/json"} | (headers or {})
    return client.post("/v1/runs", content=content, headers=headers)


def waiting_messages(settings) -> int:
    return len(list((celery_app.folder_of(settings) / "messages").glob("*.msg")))


def test_overrides_lie_over_the_preset(client, settings, dataset_id):
    answer = submit(
        client,
        dataset_id=dataset_id,
        preset="quick_test",
        base_model="tiny",
        training={"max_steps": 5, "warmup_ratio": 0.1},
        lora={"target_modules": "all-linear"},
    )
    assert answer.status_code == 201
    run = answer.json()
    assert (run["status"], run["queue_position"], run["attempts"]) == ("queued", 1, 0)
    spec = run["spec"]
    assert spec["lora"]["r"] == 16  # the preset's
    assert spec["lora"]["target_modules"] == "all-linear"  # ours
    assert (spec["training"]["max_steps"], spec["training"]["num_train_epochs"]) == (5, None)
    assert (spec["training"]["warmup_steps"], spec["training"]["warmup_ratio"]) == (None, 0.1)
    assert spec["training"]["learning_rate"] == 2e-4  # the default's
    assert waiting_messages(settings) == 1
    assert client.get(answer.headers["Location"]).json() == run


REFUSED = [
    ({"preset": "quickest"}, "/preset", "quick_test"),
    ({"preset": 3}, "/preset", "quick_test"),
    ({"lora": {"r": -1}}, "/lora/r", "at least 1"),
    ({"lora": {"rank": 8}}, "/lora/rank", "unknown field"),
    ({"lora": 8}, "/lora", "an object"),
    ({"lora": {"target_modules": []}}, "/lora/target_modules", "at least one"),
    ({"lora": {"target_parameters": ["a.b"]}}, "/lora", "set lora_dropout to 0 (it is 0.05)"),
    (
        {"lora": {"target_parameters": ["a.b"] * 2, "lora_dropout": 0}},
        "/lora/target_parameters",
        "twice",
    ),
    ({"dataset_id": "ds_none"}, "/dataset_id", "ds_none"),
    ({"dataset_id": None}, "/dataset_id", "string"),
    ({"name": "a\0b"}, "/name", "NUL"),
    ({"name": "good\u202egnp.exe"}, "/name", "bidirectional"),
    ({"name": "a\u2066b"}, "/name", "bidirectional"),
    ({"name": "a\nb"}, "/name", "unprintable"),
    ({"tags": ["fine", "a\u200fb"]}, "/tags/1", "bidirectional"),
    ({"tags": ["a", "\ud800"]}, "/tags/1", "surrogate"),
    ({"colour": "red"}, "/colour", "unknown field"),
    ({"template": "poem"}, "/template", "label_only"),
    ({"base_model": "../../etc"}, "/base_model", "path"),
    ({"base_model": "/models/x"}, "/base_model", "path"),
    (
        {"fairness": {"caps": [{"group": "martians", "max": 0.1}]}},
        "/fairness/caps/0/group",
        "lgbtq",
    ),
    ({"fairness": {"caps": [{"group": "lgbtq", "max": 1.5}]}}, "/fairness/caps/0/max", "at most"),
    ({"fairness": {"positive_label": "spam"}}, "/fairness/positive_label", "hate, normal"),
    ({"training": {"max_steps": 5, "num_train_epochs": 2}}, "/training", "exactly one"),
    ({"training": {"learning_rate": 0}}, "/training/learning_rate", "greater than 0"),
    ({"training": {"learning_rate": float("nan")}}, "/training/learning_rate", "finite"),
    ({"training": {"learning_rate": "0.1"}}, "/training/learning_rate", "must be a number"),
    ({"training": {"max_steps": 10**20}}, "/training/max_steps", "at most"),
    ({"training": {"warmup_steps": 10**9}}, "/training/warmup_steps", "at most"),
    ({"lora": {"r": True}}, "/lora/r", "whole number"),
    ({"lora": {"r": "8"}}, "/lora/r", "whole number"),
    ({"base_model": "modèle"}, "/base_model", "hub id"),
    ({"training": {"packing": "bfd"}}, "/training/packing", "shared_prefix"),
    ({"training": {"eval_strategy": "steps"}}, "/training", "eval_steps"),
    ({"training": {"eval_strategy": "no"}, "preset": "default"}, "/training", "early"),
    ({"resources": {"num_processes": 0}}, "/resources/num_processes", "at least"),
    ({"resources": {"num_processes": 1025}}, "/resources/num_processes", "at most"),
    ({"fairness": {"select": "fairest"}}, "/fairness/select", "best_f1_within_caps"),
    (
        {
            "fairness": {"select": "best_f1_within_caps"},
            "training": {"eval_strategy": "no"},
        },
        "/fairness/select",
        "set training.eval_strategy to epoch or steps",
    ),
    (
        {
            "fairness": {"select": "best_f1_within_caps"},
            "training": {"load_best_model_at_end": False},
        },
        "/fairness/select",
        "training.load_best_model_at_end: set it to true",
    ),
    ({"evaluation": {"splits": ["test", "test"]}}, "/evaluation/splits", "twice"),
]


@pytest.mark.parametrize(("change", "pointer", "says"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_bad_specification_is_refused_before_anything_is_queued(
    client, settings, dataset_id, change, pointer, says
):
    answer = submit(client, **({"dataset_id": dataset_id, "preset": "quick_test"} | change))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    errors = {error["pointer"]: error["detail"] for error in answer.json()["errors"]}
    assert pointer in errors
    assert says in errors[pointer]
    assert client.get("/v1/runs").json()["data"] == []
    assert waiting_messages(settings) == 0


def test_a_split_that_the_data_lacks_is_refused_only_when_it_was_named(client):
    rows = b'{"text": "a", "label": "hate"}\n{"text": "b", "label": "normal"}\n'
    made = client.post("/v1/datasets", data={"name": "d"}, files={"train": rows}).json()
    named = submit(client, dataset_id=made["id"], evaluation={"splits": ["test"]})
    assert named.json()["errors"][0]["pointer"] == "/evaluation/splits/0"
    inherited = client.post("/v1/runs?dry_run=true", json={"dataset_id": made["id"]})
    assert inherited.status_code == 200
    assert any("no bias report" in warning for warning in inherited.json()["warnings"])
    # The preset's caps name groups that these rows lack: said, not refused.
    assert any("not_applicable" in warning for warning in inherited.json()["warnings"])


CHOICES = [
    ({"fairness": {"select": "best_f1_within_caps"}}, "/fairness/select", "select to best_metric"),
    ({"evaluation": {"threshold": "fitted"}}, "/evaluation/threshold", "threshold to argmax"),
]


def upload(client, **counts):
    """A dataset with so many rows of ('group', 'label') in each split, each with its own text."""
    files = {
        split: "\n".join(
            json.dumps(
                {"text": f"{split} {group} {label} {number}", "label": label, "group": group}
            )
            for (group, label), rows in cells.items()
            for number in range(rows)
        )
        for split, cells in counts.items()
    }
    answer = client.post("/v1/datasets", data={"name": "made"}, files=files)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


BOTH = {("lgbtq", "hate"): 4, ("lgbtq", "normal"): 4}


@pytest.mark.parametrize(
    ("validation", "lacks"),
    [
        ({}, "no validation split"),
        ({"validation": {("lgbtq", None): 4}}, "have no labels"),
        ({"validation": {("lgbtq", "normal"): 4}}, "labelled 'hate'"),
    ],
)
@pytest.mark.parametrize(("change", "pointer", "remedy"), CHOICES)
def test_what_is_chosen_on_validation_needs_one_with_labels(
    client, validation, lacks, change, pointer, remedy
):
    made = upload(client, train=BOTH, test=BOTH, **validation)
    for path in ("/v1/runs", "/v1/runs?dry_run=true"):
        answer = client.post(path, json={"dataset_id": made, "base_model": "tiny"} | change)
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["pointer"] == pointer
        assert lacks in error["detail"]
        assert remedy in error["detail"]


@pytest.mark.parametrize("change", [change for change, _, _ in CHOICES])
def test_what_is_chosen_on_validation_is_accepted_with_one(client, dataset_id, change):
    answer = submit(client, dataset_id=dataset_id, base_model="tiny", **change)
    assert answer.status_code == 201
    clone = {"dataset_id": upload(client, train=BOTH, test=BOTH)}
    refused = client.post(f"/v1/runs/{answer.json()['id']}/clone", json=clone)
    assert refused.status_code == 422
    assert "no validation split" in refused.json()["errors"][0]["detail"]


def warnings(client, dataset_id, caps, **more):
    body = {"dataset_id": dataset_id, "fairness": {"caps": caps} | more.pop("fairness", {})} | more
    answer = client.post("/v1/runs?dry_run=true", json=body)
    assert answer.status_code == 200, answer.text
    return [said for said in answer.json()["warnings"] if " cap " in said or "chosen" in said]


def test_a_dry_run_names_caps_that_the_data_is_too_small_to_prove(client):
    # Without an error among n the upper limit is 1 - 0.05 ** (1 / n): under 0.10 from n = 29 on.
    cells = {
        ("a", "normal"): 28,
        ("b", "normal"): 29,
        ("c", "hate"): 58,
        ("d", "normal"): 1,
        ("d", "hate"): 59,
    }
    made = upload(client, train={**BOTH, ("e", "normal"): 1}, test=cells)
    caps = [
        {"group": "a", "max": 0.1},
        {"group": "b", "max": 0.1},
        {"group": "c", "max": 0.05, "metric": "fnr"},
        {"group": "d", "max": 0.05, "metric": "fnr"},
        {"group": "d", "max": 0.0},
        {"group": "e", "max": 0.96},
        {"group": "e", "max": 0.25, "metric": "fnr"},
    ]
    proven = "cannot be proven at confidence 0.95: the test split has"
    without = "and without a single error the upper limit would be"
    assert warnings(client, made, caps) == [
        (
            f"the fpr cap 0.1 on a {proven} 28 negatives of the group a, {without} 0.101; at "
            "least 29 are needed"
        ),
        (
            f"the fnr cap 0.05 on c {proven} 58 positives of the group c, {without} 0.050; at "
            "least 59 are needed"
        ),
        (
            f"the fpr cap 0 on d {proven} 1 negative of the group d, {without} 0.950; even "
            "1,000,000 more would not suffice"
        ),
        f"the fpr cap 0.96 on e {proven} 0 negatives of the group e; at least 1 is needed",
        f"the fnr cap 0.25 on e {proven} 0 positives of the group e; at least 11 are needed",
    ]
    strict = warnings(client, made, caps[1:2], fairness={"confidence": 0.99})
    assert len(strict) == 1
    assert "44 are needed" in strict[0]


def test_a_dry_run_names_caps_without_a_say_in_what_is_chosen(client):
    enough = {("a", "normal"): 40, ("a", "hate"): 40, ("b", "hate"): 40}
    made = upload(client, train=BOTH, validation={("a", "hate"): 2, ("b", "hate"): 1}, test=enough)
    caps = [
        {"group": "a", "max": 0.2},
        {"group": "a", "max": 0.2, "metric": "fnr"},
        {"group": "b", "max": 0.2, "metric": "fnr"},
    ]
    assert warnings(client, made, caps) == []
    for change, _, _ in CHOICES:
        fairness = change.get("fairness", {})
        one_class, *said = warnings(client, made, caps, **(change | {"fairness": fairness}))
        assert one_class.startswith("every row of validation is labelled 'hate'")
        assert said == [
            (
                "the validation split has no negatives of the group a: its fpr cap does not "
                "influence the choice made there"
            )
        ]
        splits = {"evaluation": change.get("evaluation", {}) | {"splits": ["validation"]}}
        one_class, *said = warnings(client, made, [], **(change | splits | {"fairness": fairness}))
        assert one_class.startswith("every row of validation is labelled 'hate'")
        assert said == [
            (
                "the report covers the validation split, on which the checkpoint or the "
                "threshold is chosen: its figures will look better than they are"
            )
        ]


def test_a_dry_run_plans_and_stores_nothing(client, settings, dataset_id):
    plan = client.post(
        "/v1/runs?dry_run=true", json={"dataset_id": dataset_id, "preset": "quick_test"}
    ).json()
    assert (plan["effective_batch_size"], plan["steps_per_epoch"], plan["total_steps"]) == (
        16,
        23,
        23,
    )
    assert any("warm-up takes 50 of 23 steps" in warning for warning in plan["warnings"])
    assert client.get("/v1/runs").json()["data"] == []
    assert waiting_messages(settings) == 0


def test_several_processes_make_the_batch_larger_and_the_steps_fewer(client, dataset_id):
    plan = client.post(
        "/v1/runs?dry_run=true",
        json={
            "dataset_id": dataset_id,
            "preset": "quick_test",
            "resources": {"num_processes": 4},
            "training": {"warmup_steps": 2},
        },
    ).json()
    assert (plan["effective_batch_size"], plan["steps_per_epoch"], plan["total_steps"]) == (
        64,
        6,
        6,
    )
    (said,) = [warning for warning in plan["warnings"] if "processes" in warning]
    assert "an optimizer step takes 64 rows" in said
    assert "must have 4 of them" in said
    # Two of six steps are a third; of the 23 of one process they would be far less.
    assert not any("warm-up" in warning for warning in plan["warnings"])


def test_unreadable_bodies(client):
    json_header = {"content-type": "application/json"}
    broken = client.post("/v1/runs", content=b"{nope", headers=json_header)
    assert (broken.status_code, broken.json()["type"]) == (400, "urn:fairtune:bad-request")
    for content in (b"[]", b"7", b"null"):
        answer = client.post("/v1/runs", content=content, headers=json_header)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_misspelt_query_parameter_starts_nothing(client, dataset_id):
    answer = client.post("/v1/runs?dryrun=true", json={"dataset_id": dataset_id})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/query/dryrun")
    assert "dry_run" in answer.json()["detail"]
    assert client.get("/v1/runs").json()["data"] == []


def test_a_positive_label_that_training_never_sees_is_refused(client):
    rows = '{{"text": "t{0}", "label": "{1}"}}\n'
    files = {
        "train": "".join(rows.format(n, "ab"[n % 2]) for n in range(4)).encode(),
        "test": rows.format(9, "c").encode(),
    }
    fields = {"name": "d", "mapping": '{"labels": ["a", "b", "c"]}'}
    made = client.post("/v1/datasets", data=fields, files=files).json()
    refused = submit(
        client,
        dataset_id=made["id"],
        template="label_only",
        fairness={"positive_label": "c", "caps": []},
    )
    assert refused.json()["errors"][0]["pointer"] == "/fairness/positive_label"


@pytest.mark.parametrize(
    "path",
    [
        "checkpoints/99999999999999999999",
        "checkpoints/-1",
        "checkpoints/99999999999999999999/download?path=a",
        "events?after=99999999999999999999",
    ],
)
def test_numbers_beyond_a_database_are_refused(client, run_id, path):
    assert client.get(f"/v1/runs/{run_id}/{path}").status_code == 422


@pytest.mark.parametrize("last", ["99999999999999999999", "9" * 5000, "-1", "x"])
def test_a_last_event_id_that_is_none_starts_from_the_beginning(client, run_id, last):
    answer = client.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": last})
    assert [event["id"] for event in answer.json()["data"]] == [1]


def test_requests_for_other_hosts_or_from_other_origins_are_refused(client):
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        answer = client.get("/v1/presets", headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:fairtune:bad-request")
    assert client.get("/v1/presets", headers={"Origin": "http://127.0.0.1"}).status_code == 200


def test_an_allow_list_of_models(settings, sample):
    from fastapi.testclient import TestClient

    from service.api.app import create_app

    strict = settings.model_copy(update={"allowed_models": ["openai/*"]})
    with TestClient(create_app(strict), base_url="http://127.0.0.1") as client:
        made = client.post("/v1/datasets", data={"name": "d"}, files=sample).json()
        refused = submit(client, dataset_id=made["id"], base_model="tiny")
        assert refused.json()["errors"][0]["pointer"] == "/base_model"
        assert submit(client, dataset_id=made["id"]).status_code == 201


def test_one_key_one_run(client, settings, dataset_id):
    key = {"Idempotency-Key": "k1"}
    body = {"dataset_id": dataset_id, "preset": "quick_test"}
    first = submit(client, headers=key, **body)
    again = submit(client, headers=key, **body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert waiting_messages(settings) == 1
    other = submit(client, headers=key, **body, seed=7)
    assert (other.status_code, other.json()["type"]) == (422, "urn:fairtune:invalid-request")


def test_a_refused_request_does_not_use_up_its_key(client, dataset_id):
    key = {"Idempotency-Key": "k2"}
    assert submit(client, headers=key, dataset_id=dataset_id, preset="no").status_code == 422
    assert submit(client, headers=key, dataset_id=dataset_id).status_code == 201


def test_twelve_at_once_with_one_key_make_one_run(client, dataset_id):
    def post(_):
        return submit(client, headers={"Idempotency-Key": "k3"}, dataset_id=dataset_id)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(post, range(12)))
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(client.get("/v1/runs").json()["data"]) == 1


def test_pages_go_from_the_newest_back(client, dataset_id):
    made = [
        submit(client, dataset_id=dataset_id, tags=[f"t{n % 2}"]).json()["id"] for n in range(5)
    ]
    seen, after = [], None
    while True:
        params = {"limit": 2} | ({"after": after} if after else {})
        page = client.get("/v1/runs", params=params).json()
        seen += [run["id"] for run in page["data"]]
        after = page["next"]
        if not page["has_more"]:
            break
    assert seen == sorted(made, reverse=True)
    tagged = client.get("/v1/runs", params={"tag": "t1"}).json()["data"]
    assert {run["id"] for run in tagged} == {made[1], made[3]}
    assert client.get("/v1/runs", params={"status": "running"}).json()["data"] == []
    assert client.get("/v1/runs", params={"status": "asleep"}).status_code == 422
    assert client.get("/v1/runs", params={"limit": 0}).status_code == 422


def test_cancelling_a_queued_run_is_at_once(client, run_id):
    assert client.post(f"/v1/runs/{run_id}/cancel").json()["status"] == "cancelled"
    assert client.post(f"/v1/runs/{run_id}/cancel").json()["status"] == "cancelled"
    events = client.get(f"/v1/runs/{run_id}/events").json()["data"]
    assert [event["data"]["status"] for event in events] == ["queued", "cancelled"]


@pytest.mark.parametrize(
    "path", ["", "/events", "/metrics", "/logs", "/checkpoints", "/artifacts", "/bias-report"]
)
def test_an_unknown_run_is_404(client, path):
    answer = client.get(f"/v1/runs/run_none{path}")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:fairtune:not-found")


def test_presets_are_as_published(client):
    found = {preset["name"]: preset["spec"] for preset in client.get("/v1/presets").json()}
    default = found["default"]
    assert default["base_model"] == "openai/gpt-oss-20b"
    assert default["lora"] | {"use_rslora": None, "use_dora": None} == {
        "r": 32,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "target_parameters": [],
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "use_rslora": None,
        "use_dora": None,
    }
    assert default["quantization"] == {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_use_double_quant": True,
    }
    published = {
        "learning_rate": 2e-4,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "warmup_steps": 100,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "lr_scheduler_type": "cosine",
        "optim": "adamw_torch",
        "max_seq_length": 512,
        "bf16": True,
        "gradient_checkpointing": True,
        "early_stopping_patience": 2,
        "early_stopping_threshold": 0.01,
        "logging_steps": 10,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 3,
        "metric_for_best_model": "eval_loss",
    }
    assert {name: default["training"][name] for name in published} == published
    caps = {cap["group"]: (cap["metric"], cap["max"]) for cap in default["fairness"]["caps"]}
    assert caps == {"lgbtq": ("fpr", 0.40), "mexican": ("fpr", 0.10), "middle_east": ("fpr", 0.25)}
    assert (default["fairness"]["min_f1"], default["fairness"]["confidence"]) == (0.615, 0.95)
    differences = {
        "high_capacity": {"lora": {"r": 64, "lora_alpha": 64}, "training": {"num_train_epochs": 5}},
        "k_proj_full_capacity": {
            "lora": {"r": 64, "lora_alpha": 64, "target_modules": ["q_proj", "v_proj", "k_proj"]},
            "training": {"num_train_epochs": 4},
        },
        "memory_efficient": {
            "training": {
                "per_device_train_batch_size": 2,
                "per_device_eval_batch_size": 2,
                "gradient_accumulation_steps": 8,
                "max_seq_length": 256,
            }
        },
        "quick_test": {
            "lora": {"r": 16, "lora_alpha": 16},
            "training": {
                "num_train_epochs": 1,
                "warmup_steps": 50,
                "early_stopping_patience": 0,
                "save_total_limit": 1,
            },
        },
    }
    assert set(found) == {"default", *differences}
    for name, sections in differences.items():
        expected = {key: default[key] | sections.get(key, {}) for key in ("lora", "training")}
        assert {key: found[name][key] for key in expected} == expected
        for key in ("quantization", "fairness", "evaluation", "base_model", "template"):
            assert found[name][key] == default[key]
