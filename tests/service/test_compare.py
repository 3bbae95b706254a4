"""Runs and checkpoints side by side: on the same rows, by each one's rule, against one's caps."""

import json

import pytest

from service.fairness.schema_compare import Comparison
from tests.support.scored_runs import ScoredRun, right, wrong_on

CAPS = [
    {"group": "lgbtq", "metric": "fpr", "max": 0.2},
    {"group": "mexican", "metric": "fpr", "max": 0.1},
]


@pytest.fixture
def scored(client, context, dataset_id):
    """Makes a succeeded run with so many false alarms by group."""

    def make(of=None, succeed=True, fairness=None, name="a run", **errors) -> ScoredRun:
        body = {"dataset_id": of or dataset_id, "base_model": "tiny", "name": name}
        body["fairness"] = {"caps": CAPS, "min_f1": 0.6} | (fairness or {})
        answer = client.post("/v1/runs", json=body)
        assert answer.status_code == 201, answer.text
        run = ScoredRun(context, answer.json()["id"])
        run.certify(wrong_on(run.of("test"), **errors))
        if succeed:
            run.succeed()
        return run

    return make


def compared(client, *named, **params):
    runs = ",".join(one if isinstance(one, str) else one.run_id for one in named)
    return client.get("/v1/compare", params={"runs": runs} | params)


def comparison(answer) -> dict:
    assert answer.status_code == 200, answer.text
    Comparison.model_validate_json(answer.content)
    return answer.json()


def test_runs_and_a_checkpoint_side_by_side(client, scored):
    one, two = scored(lgbtq=6, name="one"), scored(lgbtq=2, mexican=10, name="two")
    rows = two.of("test")
    at_30 = two.add(wrong_on(rows, lgbtq=20, mexican=20), "checkpoint", "test", step=30)
    found = comparison(compared(client, one, two, f"{two.run_id}@30"))
    names = [one.run_id, two.run_id, f"{two.run_id}@30"]
    assert [entry["entry"] for entry in found["entries"]] == names
    assert [entry["name"] for entry in found["entries"]] == ["one", "two", "two"]
    assert [entry["step"] for entry in found["entries"]] == [None, None, 30]
    assert found["entries"][2]["evaluation_id"] == at_30
    assert [entry["confusion"]["false_positive"] for entry in found["entries"]] == [6, 12, 40]
    excess = [entry["worst_excess"] for entry in found["entries"]]
    assert [(each["group"], round(each["value"], 6)) for each in excess] == [
        ("mexican", -0.1),
        ("mexican", round(10 / 68 - 0.1, 6)),
        ("mexican", round(20 / 68 - 0.1, 6)),
    ]
    assert [entry["pareto"] for entry in found["entries"]] == [True, False, False]
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [
        (names[0], names[1]),
        (names[0], names[2]),
        (names[1], names[2]),
    ]
    first = found["pairs"][0]["paired"]
    assert (first["only_first"], first["only_second"]) == (10, 4)
    assert first["p_holm"] >= first["p_value"]
    assert found["data"] == {
        "dataset_hash": one.dataset.content_hash,
        "split": "test",
        "rows": 300,
        "positives": 122,
        "negatives": 178,
    }
    assert (found["positive_label"], found["min_f1"]) == ("hate", 0.6)
    assert found["settings_of"] == one.run_id
    assert found["caps"] == CAPS
    report = client.get(f"/v1/runs/{one.run_id}/bias-report").json()
    assert found["entries"][0]["caps"] == report["caps"]
    assert found["entries"][0]["f1"]["value"] == report["overall"]["tuned"]["f1"]["value"]


def test_a_page_of_it(client, scored):
    one, two = scored(lgbtq=6, name="<i>one</i>"), scored()
    page = compared(client, one, two, format="html")
    assert page.status_code == 200, page.text
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["content-disposition"] == 'inline; filename="comparison.html"'
    assert "&lt;i&gt;one" in page.text
    assert "<i>one" not in page.text
    refused = compared(client, one, two, format="csv")
    assert refused.json()["errors"][0]["pointer"] == "/query/format"
    runs = f"{one.run_id},{two.run_id}"
    answer = client.get("/v1/compare", params={"runs": runs}, headers={"accept": "text/csv"})
    assert answer.status_code == 406


def test_the_first_one_s_settings_hold_and_that_is_said(client, scored):
    one = scored(fairness={"confidence": 0.9})
    other = [{"group": "lgbtq", "metric": "fpr", "max": 0.5}]
    two = scored(fairness={"caps": other, "min_f1": None})
    found = comparison(compared(client, one, two))
    assert (found["confidence"], found["caps"]) == (0.9, CAPS)
    (warning,) = (each for each in found["warnings"] if each["code"] == "other_settings")
    assert two.run_id in warning["detail"]
    found = comparison(compared(client, two, one))
    assert (found["confidence"], found["caps"], found["min_f1"]) == (0.95, other, None)


def test_another_split_is_compared_where_it_was_scored(client, scored):
    one, two = scored(), scored()
    answer = compared(client, one, two, split="validation")
    assert answer.status_code == 409
    detail = answer.json()["detail"]
    assert f"POST /v1/runs/{one.run_id}/evaluations" in detail
    body = json.loads(detail[detail.index("{") : detail.index("}") + 1])
    assert body == {"target": "adapter", "split": "validation"}
    for run in (one, two):
        run.add(right)
    found = comparison(compared(client, one, two, split="validation"))
    assert (found["data"]["split"], found["data"]["rows"]) == ("validation", 120)
    assert "choosing_on_test" not in {each["code"] for each in found["warnings"]}


def test_a_checkpoint_that_was_not_scored_is_a_conflict_with_the_remedy(client, scored):
    one, two = scored(), scored()
    answer = compared(client, one, f"{two.run_id}@60")
    assert answer.status_code == 409
    detail = answer.json()["detail"]
    body = json.loads(detail[detail.index("{") : detail.index("}") + 1])
    assert body == {"target": "checkpoint", "split": "test", "step": 60}
    # The adapter is the checkpoint of the step that was chosen.
    assert comparison(compared(client, one, f"{two.run_id}@90"))["entries"][1]["step"] == 90


def test_a_run_without_a_report_is_a_conflict(client, scored, run_id):
    one = scored()
    answer = compared(client, run_id, one)
    assert answer.status_code == 409
    assert "has no bias report" in answer.json()["detail"]
    answer = compared(client, one, run_id)
    assert answer.status_code == 409
    assert run_id in answer.json()["detail"]


def test_other_rows_are_refused_and_the_odd_one_is_named(client, context, scored, sample):
    fewer = sample | {"test": b"\n".join(sample["test"].splitlines()[:200])}
    other = client.post("/v1/datasets", data={"name": "other"}, files=fewer).json()["id"]
    one, two, odd = scored(), scored(), scored(of=other)
    answer = compared(client, one, two, odd)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/query/runs"
    assert error["detail"].startswith(odd.run_id)
    # Scored on the same rows afterwards, it can be compared.
    odd.add(right, split="test", rows=one.of("test"), dataset_id=one.dataset.id)
    found = comparison(compared(client, one, two, odd))
    assert found["entries"][2]["confusion"]["false_positive"] == 0


def test_the_same_rows_uploaded_twice_are_the_same(client, scored, sample):
    again = client.post("/v1/datasets", data={"name": "again"}, files=sample).json()["id"]
    assert len(comparison(compared(client, scored(), scored(of=again)))["entries"]) == 2


def test_a_part_of_the_rows_is_not_the_same_rows(client, scored):
    one, two = scored(), scored()
    two.add(right, "checkpoint", "test", step=30, rows=two.of("test")[:100])
    answer = compared(client, one, f"{two.run_id}@30")
    assert answer.status_code == 422
    assert f"{two.run_id}@30 does not have the same rows" in answer.json()["detail"]


def test_positive_labels_that_differ_are_refused(client, scored):
    one, two = scored(), scored(fairness={"positive_label": "normal", "caps": []})
    answer = compared(client, one, two)
    assert answer.status_code == 422
    assert "'normal'" in answer.json()["detail"]


def test_each_model_is_decided_by_its_own_rule(client, context, scored, dataset_id):
    one = scored(lgbtq=6)
    body = {"dataset_id": dataset_id, "base_model": "tiny", "evaluation": {"threshold": "fitted"}}
    two = ScoredRun(context, client.post("/v1/runs", json=body).json()["id"])
    two.certify(wrong_on(two.of("test"), lgbtq=6))
    two.succeed()
    answer = compared(client, one, two)
    assert answer.status_code == 409  # nothing to fit on yet
    two.add(wrong_on(two.of("validation"), lgbtq=5))  # 0.8 is no hate to it
    found = comparison(compared(client, one, two))
    assert [entry["rule"] for entry in found["entries"]] == ["argmax", "fitted"]
    assert found["entries"][0]["threshold"] is None
    assert 0.8 < found["entries"][1]["threshold"] <= 0.9
    assert [entry["confusion"]["false_positive"] for entry in found["entries"]] == [6, 0]


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("run_a", "2 to 20"),
        (",".join(f"run_{number}" for number in range(21)), "there are 21"),
        ("run_a", "there is 1"),
        ("run_a,run_a", "run_a is listed twice"),
        ("run_a@3,run_a@03", "listed twice"),
        ("run_a,run_b@x", "RUN@STEP"),
        ("run_a,", "RUN@STEP"),
        ("run_a,@3", "RUN@STEP"),
    ],
)
def test_what_cannot_be_read_is_refused(client, named, words):
    answer = client.get("/v1/compare", params={"runs": named})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/query/runs"
    assert words in error["detail"]


def test_a_run_that_is_not_there_is_not_found(client, scored):
    assert compared(client, scored(), "run_none").status_code == 404
    assert client.get("/v1/compare").status_code == 422
