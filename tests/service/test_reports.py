"""Reports on stored predictions: what certifies, thresholds, the base model beside it."""

import json
from dataclasses import replace

import pytest

from service.datasets.rows import read_rows
from service.domain.access import Role
from service.ops.capacity_limiter import CapacityLimiter
from service.store.datasets import get_dataset
from service.usecases.reports import build
from tests.support.api_keys import bearer, make_keys
from tests.support.report_calls import (
    CAPS,
    again,
    certified_run,
    evaluations,
    own,
    report,
    scored_run,
)
from tests.support.scored_runs import ScoredRun, right, wrong_on


def right_or_half(row) -> float:
    """Right where the row has a label, undecided where it has none."""
    return 0.5 if row.label is None else right(row)


@pytest.fixture
def run(client, context, dataset_id) -> ScoredRun:
    return certified_run(client, context, dataset_id)


# -- the same again ----------------------------------------------------------------------------


def test_the_same_settings_give_the_run_s_own_figures(client, run):
    certified = client.get(f"/v1/runs/{run.run_id}/bias-report").json()
    made = report(again(client, run))
    assert made["meta"]["exploratory"] is False
    differ = {name for name in made if made[name] != certified[name]}
    # What the hand that certified did not say, and the id that the evaluation got then.
    assert differ == {"meta", "data", "shown", "base_shown", "warnings"}
    assert made["meta"] == certified["meta"] | {"evaluation_id": own(client, run)}
    assert made["data"] == certified["data"] | {"without_label": 0}
    assert made["base_shown"] == made["shown"] | {"truncated": None}
    assert made["shown"]["truncated"] == 3
    assert made["shown"]["group"] is False
    assert "$text" in made["shown"]["user"]
    warned = {one["code"] for one in made["warnings"]} - {
        one["code"] for one in certified["warnings"]
    }
    assert warned == {"rows_truncated"}
    assert made["overall"]["base"]["confusion"]["false_positive"] == 30
    assert made["baselines"]["group_majority"]["accuracy"]["value"] is not None


def test_what_is_odd_in_the_dataset_is_said(client, context, sample):
    leaking = sample | {"train": sample["train"] + sample["test"].replace(b'"test-', b'"leak-')}
    made = client.post("/v1/datasets", data={"name": "leaking"}, files=leaking).json()
    run = scored_run(client, context, made["id"])
    run.certify(right)
    run.succeed()
    said = {one["code"]: one["detail"] for one in report(again(client, run))["warnings"]}
    odd = {one["code"]: one["detail"] for one in made["warnings"]}
    assert "shared_rows" in odd
    assert odd.items() <= said.items()


@pytest.mark.parametrize(
    "asked",
    [
        {"caps": []},
        {"caps": [{"group": "lgbtq", "metric": "fpr", "max": 0.3}]},
        {"caps": [*CAPS, {"group": "mexican", "metric": "fnr", "max": 0.5}]},
        {"confidence": 0.9},
        {"min_f1": 0.5},
        {"min_f1": None},
        {"min_support": 31},
        {"threshold": "fitted"},
        {"threshold": 0.5},
    ],
)
def test_other_settings_are_exploratory(client, run, asked):
    run.add(right)
    made = report(again(client, run, **asked))
    assert made["meta"]["exploratory"] is True
    assert "exploratory" in {one["code"] for one in made["warnings"]}


@pytest.mark.parametrize(
    "asked",
    [
        {"caps": CAPS},
        {"confidence": 0.95, "min_f1": 0.615, "min_support": 30, "threshold": "argmax"},
    ],
)
def test_the_run_s_settings_said_aloud_are_not(client, run, asked):
    assert report(again(client, run, **asked))["meta"]["exploratory"] is False


def test_beside_another_base_model_than_the_run_s_own_it_is_exploratory(client, run):
    usual = evaluations(client, run)["base", "test"]
    other = run.add(right, target="base", split="test", step=None, template="hate_speech_policy")
    for named, exploratory in ((usual, False), (other, True), (None, True)):
        made = report(again(client, run, base_evaluation=named))
        assert made["meta"]["exploratory"] is exploratory, named


def test_an_evaluation_that_does_not_certify_is_exploratory(client, run):
    for target, split in (("base", "test"), ("adapter", "validation"), ("checkpoint", "test")):
        evaluation = run.add(
            right,
            target=target,
            split=split,
            rows=run.of(split),
            step=None if target == "base" else 90,
            template="hate_speech_policy",
        )
        made = report(again(client, run, evaluation))
        assert made["meta"]["exploratory"] is True
        assert (made["meta"]["target"], made["meta"]["split"]) == (target, split)
        assert made["meta"]["template"] == "hate_speech_policy"


def differences(made) -> str:
    return {one["code"]: one["detail"] for one in made["warnings"]}["exploratory"]


def test_the_warning_names_what_makes_a_report_exploratory(client, run):
    """A report with the run's own settings is never said to have others."""
    validation = run.add(right, rows=run.of("validation"))
    made = differences(report(again(client, run, validation)))
    assert made.endswith("does not gate a release: the split is validation, not test.")
    checkpoint = run.add(right, target="checkpoint", split="test", rows=run.of("test"), step=60)
    made = differences(report(again(client, run, checkpoint)))
    assert "the model is the checkpoint of step 60, not the adapter of step 90" in made
    for words in ("caps", "min_f1", "confidence", "threshold", "settings"):
        assert words not in made
    made = differences(report(again(client, run, confidence=0.9, min_f1=None, threshold=0.5)))
    assert "confidence is 0.9; the run's is 0.95" in made
    assert "min_f1 is none; the run's is 0.615" in made
    assert "the threshold is 0.5; the run's is argmax" in made
    assert "caps" not in made
    assert "the split" not in made
    assert "the caps are not the run's" in differences(report(again(client, run, caps=[])))


# -- rows of another dataset -------------------------------------------------------------------


def uploaded(client, split, rows):
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    other = [{"text": f"another {n}", "label": ("hate", "normal")[n % 2]} for n in range(2)]
    files = {"train": b"".join(json.dumps(row).encode() + b"\n" for row in other)} | {split: lines}
    answer = client.post("/v1/datasets", data={"name": "another"}, files=files)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def scored_elsewhere(client, run, split, texts, group="lgbtq"):
    """Score rows with these texts as the split of another dataset; return the report."""
    rows = [
        {"text": text, "label": ("hate", "normal")[n % 2], "group": group, "id": f"x{n}"}
        for n, text in enumerate(texts)
    ]
    dataset_id = uploaded(client, split, rows)
    with run.context.database.read() as session:
        key = get_dataset(session, dataset_id).key
    with run.context.store.local(key) as path:
        stored = list(read_rows(path, split))
    evaluation = run.add(right, split=split, rows=stored, dataset_id=dataset_id)
    return report(again(client, run, evaluation))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("leaked", [0, 1, 6, 24])
def test_leaks_are_seen_across_datasets(client, run, split, leaked):
    """Also in white space; and rows of a split called train are not said to be trained on."""
    texts = [f"  {row.text}\n" for row in run.of("train")[:leaked]]
    texts += [f"a new text {n}" for n in range(24 - leaked)]
    made = scored_elsewhere(client, run, split, texts)
    assert (made["data"]["seen_in_training"], made["data"]["seen_in_validation"]) == (leaked, 0)
    details = " ".join(one["detail"] for one in made["warnings"])
    assert ("trained on" in details) == (leaked > 0)
    if 0 < leaked < 24:
        assert f"{leaked} of 24 rows ha" in details
        assert made["unseen"]["rows"] == 24 - leaked


def test_the_base_model_has_seen_no_rows(client, run):
    evaluation = run.add(right, target="base", split="train", step=None, rows=run.of("train"))
    made = report(again(client, run, evaluation))
    assert made["data"]["seen_in_training"] == 0
    assert "trained on" not in " ".join(one["detail"] for one in made["warnings"])


def test_a_cap_applies_where_the_scored_dataset_has_its_group(client, run):
    """The run's dataset has lgbtq, this one has not: nothing about it can be inconclusive there."""
    made = scored_elsewhere(client, run, "test", [f"a text {n}" for n in range(8)], "mexican")
    (cap,) = made["caps"]
    assert (cap["verdict"], cap["reason"]) == ("not_applicable", "the data has no group 'lgbtq'")
    assert made["caps_verdict"] == "not_applicable"


def test_a_run_that_has_not_succeeded_certifies_nothing(client, context, dataset_id):
    run = scored_run(client, context, dataset_id)
    run.certify(right)
    assert report(again(client, run))["meta"]["exploratory"] is True
    run.succeed()
    assert report(again(client, run))["meta"]["exploratory"] is False


# -- thresholds --------------------------------------------------------------------------------


def test_a_threshold_of_one_s_own(client, run):
    made = report(again(client, run, threshold=0.85))
    assert (made["meta"]["threshold"], made["settings"]["threshold"]) == ("given", 0.85)
    assert made["overall"]["tuned"]["confusion"]["false_positive"] == 0  # they scored 0.8
    assert made["overall"]["base"]["confusion"]["false_positive"] == 30  # always by argmax
    rules = {one["rule"]: one for one in made["thresholds"]}
    assert rules["given"]["threshold"] == 0.85
    assert rules["fitted"]["threshold"] is None


def test_fitted_needs_the_same_model_on_validation_and_says_how_to_get_it(client, run):
    answer = again(client, run, threshold="fitted")
    assert answer.status_code == 409
    detail = answer.json()["detail"]
    assert f"POST /v1/runs/{run.run_id}/evaluations" in detail
    body = json.loads(detail[detail.index("{") : detail.index("}") + 1])
    assert body == {"target": "adapter", "split": "validation"}
    for other in ({"step": 30}, {"template": "label_only"}, {"target": "base", "step": None}):
        run.add(right, **other)
        assert again(client, run, threshold="fitted").status_code == 409
    # Harmless rows score 0.8 and hateful ones 0.9: there is a threshold that tells them apart.
    run.add(wrong_on(run.of("validation"), lgbtq=5))
    made = report(again(client, run, threshold="fitted"))
    assert made["meta"]["threshold"] == "fitted"
    assert 0.8 < made["settings"]["threshold"] <= 0.9
    assert made["overall"]["tuned"]["confusion"]["false_positive"] == 0
    fitted = next(one for one in made["thresholds"] if one["rule"] == "fitted")
    assert (fitted["fit"]["split"], fitted["fit"]["rows"]) == ("validation", 120)


def test_the_checkpoint_of_the_same_step_has_the_same_weights(client, run):
    run.add(wrong_on(run.of("validation"), lgbtq=5), target="checkpoint")
    made = report(again(client, run, threshold="fitted"))
    assert 0.8 < made["settings"]["threshold"] <= 0.9


def test_a_fitted_run_is_reported_as_it_asked_to_be(client, context, dataset_id):
    body = {"evaluation": {"threshold": "fitted"}}
    if (
        client.post("/v1/runs?dry_run=true", json={"dataset_id": dataset_id} | body).status_code
        != 200
    ):
        pytest.fail("the specification does not take threshold fitted")
    run = scored_run(client, context, dataset_id, **body)
    run.certify(right)
    run.succeed()
    run.add(right)
    made = report(again(client, run))
    assert (made["meta"]["threshold"], made["meta"]["exploratory"]) == ("fitted", False)
    assert report(again(client, run, threshold="argmax"))["meta"]["exploratory"] is True


def test_fitted_without_labelled_validation_rows_cannot_be_had(client, context, sample):
    files = {name: sample[name] for name in ("train", "test")}
    dataset_id = client.post("/v1/datasets", data={"name": "d"}, files=files).json()["id"]
    run = scored_run(client, context, dataset_id)
    run.certify(right)
    run.succeed()
    answer = again(client, run, threshold="fitted")
    assert answer.status_code == 409
    assert "dataset has none" in answer.json()["detail"]


# -- the base model beside it ------------------------------------------------------------------


def test_the_base_model_beside_it_is_the_run_s_own_or_the_one_named(client, run):
    found = evaluations(client, run)
    other = run.add(
        wrong_on(run.of("test"), lgbtq=20),
        target="base",
        step=None,
        split="test",
        rows=run.of("test"),
        template="hate_speech_policy",
    )
    made = report(again(client, run))
    assert made["meta"]["base_template"] == "hate_speech_simple"
    assert made["overall"]["base"]["confusion"]["false_positive"] == 30
    made = report(again(client, run, base_evaluation=other))
    assert made["meta"]["base_template"] == "hate_speech_policy"
    assert made["overall"]["base"]["confusion"]["false_positive"] == 20
    made = report(again(client, run, base_evaluation=None))
    assert (made["overall"]["base"], made["before_after"]) == (None, None)
    made = report(again(client, run, found["base", "test"]))
    assert (made["meta"]["target"], made["overall"]["base"]) == ("base", None)


def test_a_base_of_other_rows_is_refused_and_by_default_left_out(client, run):
    on_validation = run.add(right, target="base", step=None)
    few = run.add(
        right,
        target="base",
        step=None,
        split="test",
        rows=run.of("test")[:50],
        template="label_only",
    )
    for evaluation in (on_validation, few, own(client, run), "eval_none"):
        answer = again(client, run, base_evaluation=evaluation)
        assert answer.status_code == 422
        assert [one["pointer"] for one in answer.json()["errors"]] == ["/base_evaluation"]
    part = run.add(right, split="test", rows=run.of("test")[:50])
    assert report(again(client, run, part))["overall"]["base"] is None
    assert report(again(client, run, part, base_evaluation=few))["overall"]["base"] is not None


def test_other_texts_under_the_same_ids_are_other_rows(client, run, sample):
    twisted = sample | {"test": sample["test"].replace(b"people", b"persons")}
    other = client.post("/v1/datasets", data={"name": "twisted"}, files=twisted).json()["id"]
    assert other != run.dataset.id
    twin = run.add(right, split="test", rows=run.of("test"), dataset_id=other)
    assert report(again(client, run, twin))["overall"]["base"] is None
    base = evaluations(client, run)["base", "test"]
    answer = again(client, run, twin, base_evaluation=base)
    assert [one["pointer"] for one in answer.json()["errors"]] == ["/base_evaluation"]


# -- what is wrong is named --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"caps": [{"group": "nobody", "max": 0.1}]}, "/caps/0/group"),
        ({"caps": [CAPS[0], CAPS[0]]}, "/caps"),
        ({"caps": [{"group": "lgbtq", "max": 2}]}, "/caps/0/max"),
        ({"confidence": 1}, "/confidence"),
        ({"confidence": "0.9"}, "/confidence"),
        ({"min_f1": -0.1}, "/min_f1"),
        ({"min_support": 0}, "/min_support"),
        ({"threshold": "best"}, "/threshold"),
        ({"threshold": 1.5}, "/threshold"),
        ({"threshold": True}, "/threshold"),
        ({"threshold": None}, "/threshold"),
        ({"treshold": 0.5}, "/treshold"),
    ],
)
def test_a_wrong_field_is_named(client, run, body, pointer):
    answer = again(client, run, **body)
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]


def test_what_is_not_there_is_not_found(client, run, context, dataset_id):
    assert again(client, run, "eval_none").status_code == 404
    other = scored_run(client, context, dataset_id)
    assert again(client, other, own(client, run)).status_code == 404


def test_rows_without_labels_cannot_be_reported_on(client, context, run):
    rows = [
        type(row)(**{name: getattr(row, name) for name in row.__slots__} | {"label": None})
        for row in run.of("test")
    ]
    evaluation = run.add(lambda _: 0.3, split="test", rows=rows)
    answer = again(client, run, evaluation)
    assert answer.status_code == 409
    assert "no labels" in answer.json()["detail"]


def test_predictions_that_cannot_be_read_are_said_to_be_so(client, context, run):
    from service.store.runs import get_evaluation

    evaluation = own(client, run)
    with context.database.read() as session:
        key = get_evaluation(session, run.run_id, evaluation).key
    (context.store.root / key).write_bytes(b"not Parquet")
    answer = again(client, run, evaluation)
    assert answer.status_code == 409
    assert evaluation in answer.json()["detail"]


# -- rows that are in no figure ------------------------------------------------------------------


def test_rows_without_a_label_and_rows_left_out_by_max_samples_are_counted(client, run):
    first = run.of("test")[:40]
    rows = [replace(row, label=None) for row in first[:7]] + first[7:]
    evaluation = run.add(right_or_half, split="test", rows=rows, max_samples=40)
    made = report(again(client, run, evaluation))
    assert made["meta"]["evaluation_id"] == evaluation
    assert (made["meta"]["max_samples"], made["data"]["rows"]) == (40, 33)
    assert made["data"]["without_label"] == 7
    said = {one["code"]: one["detail"] for one in made["warnings"]}
    assert said["rows_without_label"].startswith("7 scored rows have no label")
    assert said["rows_sampled"].endswith("at most 40 rows (max_samples).")


def test_max_samples_that_left_nothing_out_makes_no_sample(client, run):
    count = len(run.of("test"))
    whole = run.add(right, split="test", max_samples=count)
    run.add(right, max_samples=100_000)
    made = report(again(client, run, whole))
    assert (made["meta"]["max_samples"], made["data"]["rows"]) == (None, count)
    codes = {one["code"] for one in made["warnings"]}
    assert not codes & {"rows_sampled", "fitted_on_sample"}


def test_a_threshold_that_was_fitted_on_a_sample_says_so(client, run):
    run.add(right, rows=run.of("validation")[:50], max_samples=50)
    said = {one["code"]: one["detail"] for one in report(again(client, run))["warnings"]}
    assert "sample of the validation split (50 labelled rows)" in said["fitted_on_sample"]
    run.add(right)  # all rows go before a part of them
    codes = {one["code"] for one in report(again(client, run))["warnings"]}
    assert "fitted_on_sample" not in codes


# -- who may, and how many at once ---------------------------------------------------------------


def test_a_viewer_may_ask_for_a_report_since_nothing_is_kept(client, context, run):
    evaluation = own(client, run)
    tokens = make_keys(context.database)
    headers = bearer(tokens[Role.VIEWER])
    assert again(client, run, evaluation, headers=headers).status_code == 200
    url = f"/v1/runs/{run.run_id}/evaluations"
    assert client.post(url, json={}, headers=headers).status_code == 403


def test_more_reports_than_may_be_made_at_once_are_sent_away(client, run, monkeypatch):
    evaluation = own(client, run)
    monkeypatch.setattr(
        build, "LIMITER", CapacityLimiter("reports", at_once=0, waiting=0, seconds=0)
    )
    answer = again(client, run, evaluation)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairtune:busy")
    assert int(answer.headers["Retry-After"]) > 0
    assert "retry in" in answer.json()["detail"]
    compared = client.get("/v1/compare", params={"runs": f"{run.run_id},{run.run_id}@90"})
    assert (compared.status_code, compared.json()["type"]) == (503, "urn:fairtune:busy")
    # The stored report is there in every form, and what is not there is said at once.
    for form in ("json", "html", "csv"):
        url = f"/v1/runs/{run.run_id}/bias-report?format={form}"
        assert client.get(url).status_code == 200
    assert again(client, run, "eval_none").status_code == 404
