"""A name is given where the certifying report passes, or with an override that is kept."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.domain.access import Role
from service.store import promotions
from tests.support.api_keys import bearer, make_keys
from tests.support.scored_runs import ScoredRun, right, wrong_on

CAPS = [
    {"group": "lgbtq", "metric": "fpr", "max": 0.2},
    {"group": "mexican", "metric": "fpr", "max": 0.1},
]


@pytest.fixture
def scored(client, context, dataset_id):
    """Makes a run that has been scored; `fairness` as in a submission."""

    def make(fairness=None, **errors) -> ScoredRun:
        body = {"dataset_id": dataset_id, "base_model": "tiny", "name": "a run"}
        body["fairness"] = {"caps": CAPS, "min_f1": 0.6} if fairness is None else fairness
        answer = client.post("/v1/runs", json=body)
        assert answer.status_code == 201, answer.text
        run = ScoredRun(context, answer.json()["id"])
        run.certify(wrong_on(run.of("test"), **errors))
        run.succeed()
        return run

    return make


def promote(client, run, headers=None, **body):
    return client.post(
        f"/v1/runs/{run.run_id}/promote", json={"name": "hate-en"} | body, headers=headers
    )


def client_bytes(context, run):
    from service.store.runs import find_artifact

    with context.database.read() as session:
        key = find_artifact(session, run.run_id, "bias_report.json").key
    return (context.store.root / key).read_bytes()


def test_a_run_whose_report_passes_gets_the_name(client, context, scored):
    run = scored()
    answer = promote(client, run)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["name"], made["stage"], made["run_id"]) == ("hate-en", "production", run.run_id)
    assert (made["is_current"], made["override"], made["superseded_at"]) == (True, None, None)
    digest = hashlib.sha256(client_bytes(context, run)).hexdigest()
    assert made["report_sha256"] == digest
    assert client.get(f"/v1/runs/{run.run_id}").json()["promoted_as"] == ["hate-en@production"]
    assert client.get("/v1/runs").json()["data"][0]["promoted_as"] == ["hate-en@production"]
    assert client.get("/v1/promotions/hate-en/production").json() == made
    event = client.get(f"/v1/runs/{run.run_id}/events").json()["data"][-1]
    assert event["type"] == "promoted"
    assert event["data"]["promotion_id"] == made["id"]
    assert event["data"]["report_sha256"] == digest


def test_what_hinders_is_listed_with_the_numbers_needed(client, scored):
    run = scored(
        {"caps": [*CAPS, {"group": "middle_east", "max": 0.05}], "min_f1": 0.99},
        lgbtq=40,
        mexican=4,
    )
    answer = promote(client, run)
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (409, "urn:fairtune:not-releasable")
    assert '"override": {"reason"' in problem["detail"]
    report = client.get(f"/v1/runs/{run.run_id}/bias-report").json()
    found = {(one["kind"], one.get("group")): one for one in problem["hindrances"]}
    assert set(found) == {
        ("cap", "lgbtq"),
        ("cap", "mexican"),
        ("cap", "middle_east"),
        ("min_f1", None),
    }
    assert len(report["caps"]) == 3
    for cap in report["caps"]:
        one = found["cap", cap["group"]]
        assert (one["verdict"], one["limit"]) == (cap["verdict"], cap["max"])
        assert one["observed"] == cap["observed"]
        assert one.get("needed_further") == cap["needed_further"]
        assert one["detail"] in problem["detail"]
    assert found["cap", "lgbtq"]["verdict"] == "fail"
    assert found["cap", "mexican"]["verdict"] == "inconclusive"
    assert str(found["cap", "mexican"]["needed_further"]) in found["cap", "mexican"]["detail"]
    assert found["cap", "middle_east"]["observed"] == 0
    assert found["min_f1", None]["observed"] == report["min_f1"]["value"]
    assert client.get("/v1/promotions").json()["data"] == []
    assert client.get(f"/v1/runs/{run.run_id}").json()["promoted_as"] == []


def test_an_override_is_kept_with_what_it_overrode(client, context, scored):
    run = scored(lgbtq=40)
    tokens = make_keys(context.database)
    answer = promote(
        client,
        run,
        headers=bearer(tokens[Role.OPERATOR]),
        stage="staging",
        override={"reason": "a trial behind a human check"},
    )
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["created_by"] == "operator"
    assert made["override"]["reason"] == "a trial behind a human check"
    (one,) = made["override"]["overrode"]
    assert (one["kind"], one["group"], one["verdict"]) == ("cap", "lgbtq", "fail")
    headers = bearer(tokens[Role.VIEWER])
    event = client.get(f"/v1/runs/{run.run_id}/events", headers=headers).json()["data"][-1]
    assert event["data"]["by"] == "operator"
    assert event["data"]["override_reason"] == "a trial behind a human check"
    refused = promote(client, run, headers=headers, stage="staging")
    assert refused.status_code == 403


def test_an_override_that_nothing_needed_says_so(client, scored):
    made = promote(client, scored(), override={"reason": "to be sure"}).json()
    assert made["override"] == {"reason": "to be sure", "overrode": []}


@pytest.mark.parametrize(
    ("fairness", "kinds"),
    [
        ({"caps": []}, ["no_cap_applies"]),
        ({"caps": [], "min_f1": 0.6}, ["no_cap_applies"]),
        ({"caps": [], "min_f1": 0.9999}, ["no_cap_applies", "min_f1"]),
        ({"caps": CAPS}, []),
    ],
)
def test_a_run_without_caps_shows_nothing_about_groups(client, scored, fairness, kinds):
    answer = promote(client, scored({"min_f1": None} | fairness, lgbtq=4))
    if not kinds:
        assert answer.status_code == 201, answer.text
        return
    assert answer.status_code == 409
    hindrances = answer.json()["hindrances"]
    assert [hindrance["kind"] for hindrance in hindrances] == kinds
    assert "no caps" in hindrances[0]["detail"]


def leaking_dataset(client, leaked, rows=24):
    """A dataset with `rows` test rows of each class, of which train has the first `leaked` too."""

    def lines(name, count):
        return b"".join(
            json.dumps({"text": f"{name} {n} {label}", "label": label, "group": "lgbtq"}).encode()
            + b"\n"
            for n in range(count)
            for label in ("hate", "normal")
        )

    files = {"test": lines("test", rows), "train": lines("train", 40) + lines("test", leaked)}
    answer = client.post("/v1/datasets", data={"name": "leaking"}, files=files)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


@pytest.mark.parametrize(
    ("leaked", "caps", "kind"),
    [
        (0, [{"group": "lgbtq", "metric": "fpr", "max": 0.2}], None),
        (6, [{"group": "lgbtq", "metric": "fpr", "max": 0.2}], None),  # shown by the other 18
        (20, [{"group": "lgbtq", "metric": "fpr", "max": 0.2}], "cap"),
        (24, [{"group": "lgbtq", "metric": "fpr", "max": 0.2}], "not_test"),
        (6, [], "no_cap_applies"),
    ],
)
def test_rows_that_the_model_has_seen_certify_nothing(client, context, leaked, caps, kind):
    body = {
        "dataset_id": leaking_dataset(client, leaked),
        "base_model": "tiny",
        "fairness": {"caps": caps, "min_f1": 0.6},
    }
    run = ScoredRun(context, client.post("/v1/runs", json=body).json()["id"])
    report = run.certify(right)
    assert report["data"]["seen_in_training"] == 2 * leaked
    assert ("seen_in_training" in {one["code"] for one in report["warnings"]}) == (leaked > 0)
    run.succeed()
    answer = promote(client, run)
    if kind is None:
        assert answer.status_code == 201, answer.text
        return
    assert answer.status_code == 409, answer.text
    (hindrance,) = answer.json()["hindrances"]
    assert hindrance["kind"] == kind
    if caps:
        assert f"trained or chosen on {2 * leaked} of 48 rows" in hindrance["detail"]


def _caps_not_applicable(report, applicable):
    report["caps"][0] |= {
        "verdict": "not_applicable",
        "observed": None,
        "lower": None,
        "upper": None,
        "numerator": 0,
        "denominator": 0,
        "needed_further": None,
        "would_settle": None,
        "reason": "the data has no such group",
    }
    del report["caps"][1 + applicable :]
    return report


@pytest.mark.parametrize("others", [0, 1])
def test_caps_that_do_not_apply_hinder_only_where_none_does(client, context, scored, others):
    """A preset's caps may be on groups that the data lacks."""
    made = scored()
    report = json.loads(client_bytes(context, made))
    made = _rewritten(client, context, made, _caps_not_applicable(report, others))
    answer = promote(client, made)
    if others:
        assert answer.status_code == 201, answer.text
    else:
        assert [one["kind"] for one in answer.json()["hindrances"]] == ["no_cap_applies"]


def _rewritten(client, context, like, report):
    """Another run like that one, with that report."""
    run_id = client.post(f"/v1/runs/{like.run_id}/clone", json={}).json()["id"]
    run = ScoredRun(context, run_id)
    run.score("adapter", right)
    content = report if isinstance(report, bytes) else json.dumps(report).encode()
    run.store_report(content)
    run.succeed()
    return run


def test_a_report_of_the_form_before_gates_as_well(client, context, scored):
    made = scored()
    old = json.loads(client_bytes(context, made))
    for name in (
        "shown",
        "success",
        "by_source",
        "by_detail",
        "functional",
        "parity",
        "before_after",
        "thresholds",
        "curves",
        "worst_mistakes",
        "format_sample",
    ):
        old.pop(name, None)
    old["schema_version"] = 1
    assert promote(client, _rewritten(client, context, made, old)).status_code == 201
    old["caps"][0]["verdict"] = "fail"
    assert promote(client, _rewritten(client, context, made, old)).status_code == 409


def test_an_exploratory_report_gates_nothing(client, context, scored):
    report = json.loads(client_bytes(context, scored()))
    report["meta"]["exploratory"] = True
    answer = promote(client, _rewritten(client, context, scored(), report))
    assert [one["kind"] for one in answer.json()["hindrances"]] == ["exploratory"]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows_that_had_a_part_in_the_model_certify_nothing(client, context, dataset_id, split):
    fairness = {"caps": [{"group": "lgbtq", "metric": "fpr", "max": 0.2}], "min_f1": 0.6}
    body = {"dataset_id": dataset_id, "base_model": "tiny", "fairness": fairness}
    run = ScoredRun(context, client.post("/v1/runs", json=body).json()["id"])
    report = run.certify(right, split=split)
    assert "not_certifying_split" in {one["code"] for one in report["warnings"]}
    run.succeed()
    answer = promote(client, run)
    assert answer.status_code == 409
    assert [one["kind"] for one in answer.json()["hindrances"]] == ["not_test"]
    assert promote(client, run, override={"reason": "there is no test split"}).status_code == 201


@pytest.mark.parametrize("content", [b"{}", None])
def test_a_run_without_a_report_needs_an_override(client, context, dataset_id, content):
    body = {"dataset_id": dataset_id, "base_model": "tiny"}
    run = ScoredRun(context, client.post("/v1/runs", json=body).json()["id"])
    if content is not None:
        run.store_report(content)
    run.succeed()
    answer = promote(client, run)
    assert [one["kind"] for one in answer.json()["hindrances"]] == ["no_report"]
    made = promote(client, run, override={"reason": "no labels to test on"}).json()
    assert (made["report_sha256"] is None) is (content is None)


def test_a_run_that_has_not_succeeded_cannot_be_promoted_by_any_means(client, run_id):
    body = {"name": "hate-en", "override": {"reason": "at once"}}
    answer = client.post(f"/v1/runs/{run_id}/promote", json=body)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:fairtune:conflict")
    assert "queued" in answer.json()["detail"]


def test_a_stored_report_that_was_changed_promotes_nothing(client, context, scored):
    from service.store.runs import find_artifact

    run = scored(lgbtq=40)
    with context.database.read() as session:
        key = find_artifact(session, run.run_id, "bias_report.json").key
    path = context.store.root / key
    path.write_bytes(path.read_bytes().replace(b'"fail"', b'"pass"'))
    answer = promote(client, run)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:fairtune:conflict")
    assert "SHA-256" in answer.json()["detail"]


def test_the_next_run_takes_the_name_and_history_is_kept(client, scored):
    first, second = scored(), scored()
    for run in (first, second):
        assert promote(client, run).status_code == 201
    promote(client, first, name="other", stage="staging")
    assert client.get("/v1/promotions/hate-en/production").json()["run_id"] == second.run_id
    assert client.get(f"/v1/runs/{first.run_id}").json()["promoted_as"] == ["other@staging"]
    listed = client.get("/v1/promotions").json()["data"]
    assert [(one["name"], one["run_id"], one["is_current"]) for one in listed] == [
        ("other", first.run_id, True),
        ("hate-en", second.run_id, True),
        ("hate-en", first.run_id, False),
    ]
    assert listed[2]["superseded_at"] is not None
    page = client.get("/v1/promotions", params={"name": "hate-en", "limit": 1}).json()
    assert (page["has_more"], [one["run_id"] for one in page["data"]]) == (True, [second.run_id])
    rest = client.get("/v1/promotions", params={"name": "hate-en", "after": page["next"]}).json()
    assert [one["run_id"] for one in rest["data"]] == [first.run_id]
    staged = client.get("/v1/promotions", params={"stage": "staging"}).json()["data"]
    assert [one["name"] for one in staged] == ["other"]
    event = client.get(f"/v1/runs/{second.run_id}/events").json()["data"][-1]
    assert event["data"]["supersedes"] == first.run_id


def test_promoting_what_has_the_name_is_no_error_and_nothing_new(client, scored):
    run = scored()
    first = promote(client, run)
    again = promote(client, run)
    assert (again.status_code, again.json()) == (200, first.json())
    assert len(client.get("/v1/promotions").json()["data"]) == 1


def test_the_same_key_promotes_once(client, scored):
    first, second = scored(), scored()
    headers = {"Idempotency-Key": "k"}
    made = promote(client, first, headers=headers).json()
    promote(client, second)
    again = promote(client, first, headers=headers)
    assert again.status_code == 200
    assert again.json()["id"] == made["id"]
    assert client.get("/v1/promotions/hate-en/production").json()["run_id"] == second.run_id
    other = promote(client, first, headers=headers, stage="staging")
    assert (other.status_code, other.json()["type"]) == (422, "urn:fairtune:invalid-request")


def test_of_several_at_once_one_is_current_and_the_rest_are_history(client, context, scored):
    runs = [scored() for _ in range(4)]
    with ThreadPoolExecutor(len(runs)) as pool:
        answers = list(pool.map(lambda run: promote(client, run), runs))
    assert [answer.status_code for answer in answers] == [201] * len(runs)
    listed = client.get("/v1/promotions").json()["data"]
    assert sum(one["is_current"] for one in listed) == 1
    assert {one["run_id"] for one in listed} == {run.run_id for run in runs}
    current = client.get("/v1/promotions/hate-en/production").json()
    older = [one["superseded_at"] for one in listed if not one["is_current"]]
    assert max(older) <= current["created_at"]
    names = [client.get(f"/v1/runs/{run.run_id}").json()["promoted_as"] for run in runs]
    assert sorted(names) == [[], [], [], ["hate-en@production"]]


def test_the_database_itself_refuses_a_second_current_one(client, context, scored):
    from sqlalchemy.exc import IntegrityError

    from service.store.tables import Promotion

    run = scored()
    promote(client, run)
    with context.database.read() as session:
        row = promotions.current(session, "hate-en", "production").model_dump()
    with pytest.raises(IntegrityError), context.database.write() as session:
        session.add(Promotion(**row | {"id": "promo_2"}))


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/name"),
        ({"name": "a@b"}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": "-x"}, "/name"),
        ({"name": "x", "stage": "a/b"}, "/stage"),
        ({"name": "x", "override": {"reason": "  "}}, "/override/reason"),
        ({"name": "x", "override": {"reason": "a\x00b"}}, "/override/reason"),
        ({"name": "x", "override": {"reason": "\ud800"}}, "/override/reason"),
        ({"name": "x", "override": {}}, "/override/reason"),
        ({"name": "x", "overide": {"reason": "r"}}, "/overide"),
    ],
)
def test_a_wrong_field_is_named(client, run_id, body, pointer):
    answer = client.post(
        f"/v1/runs/{run_id}/promote",
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]


def test_a_name_that_no_run_has_is_not_found(client):
    answer = client.get("/v1/promotions/nobody/production")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:fairtune:not-found")
    body = {"name": "x"}
    assert client.post("/v1/runs/run_none/promote", json=body).status_code == 404


def test_a_promotion_is_withdrawn_and_its_history_kept(client, context, scored):
    run = scored()
    tokens = make_keys(context.database)
    operator, viewer = bearer(tokens[Role.OPERATOR]), bearer(tokens[Role.VIEWER])
    made = promote(client, run, headers=operator).json()
    path = "/v1/promotions/hate-en/production"
    assert client.delete(path, headers=viewer).status_code == 403
    answer = client.delete(path, headers=operator)
    assert answer.status_code == 200, answer.text
    withdrawn = answer.json()
    assert (withdrawn["id"], withdrawn["is_current"]) == (made["id"], False)
    assert withdrawn["withdrawn_by"] == "operator"
    assert withdrawn["withdrawn_at"] == withdrawn["superseded_at"] is not None
    assert client.get(path, headers=viewer).status_code == 404
    assert client.delete(path, headers=operator).status_code == 404
    assert client.get("/v1/promotions", headers=viewer).json()["data"] == [withdrawn]
    url = f"/v1/runs/{run.run_id}"
    assert client.get(url, headers=viewer).json()["promoted_as"] == []
    *_, promoted, event = client.get(f"{url}/events", headers=viewer).json()["data"]
    assert (promoted["type"], event["type"]) == ("promoted", "withdrawn")
    assert event["data"] == {
        "name": "hate-en",
        "stage": "production",
        "promotion_id": made["id"],
        "by": "operator",
    }
    again = promote(client, run, headers=operator)  # as a new promotion
    assert again.status_code == 201
    assert again.json()["id"] != made["id"]
    assert again.json()["withdrawn_at"] is None
    assert client.delete(path, headers=operator).status_code == 200
    assert client.delete(url, headers=operator).status_code == 204


def test_a_run_that_has_a_name_says_how_to_withdraw_it(client, scored):
    run = scored()
    promote(client, run)
    refused = client.delete(f"/v1/runs/{run.run_id}")
    assert refused.status_code == 409
    assert "DELETE /v1/promotions/{name}/{stage}" in refused.json()["detail"]
