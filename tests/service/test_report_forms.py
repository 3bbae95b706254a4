"""The forms of a report: the stored JSON, a page, two tables; and those that there are not."""

import csv
import io
import json

import pytest

from tests.support.report_calls import again, certified_run, own, report, scored_run
from tests.support.scored_runs import ScoredRun, wrong_on

PAGE = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture
def run(client, context, dataset_id) -> ScoredRun:
    return certified_run(client, context, dataset_id)


def get(client, run, which, **options):
    if which == "own":
        return client.get(f"/v1/runs/{run.run_id}/bias-report", **options)
    url = f"/v1/runs/{run.run_id}/evaluations/{own(client, run)}/reports"
    return client.post(url, **options)


def test_the_stored_json_comes_byte_for_byte(client, context, run):
    from service.store.runs import find_artifact

    with context.database.read() as session:
        key = find_artifact(session, run.run_id, "bias_report.json").key
    answer = client.get(f"/v1/runs/{run.run_id}/bias-report")
    assert answer.content == (context.store.root / key).read_bytes()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize("which", ["own", "again"])
def test_a_page_of_its_own(client, run, which):
    for options in ({"headers": PAGE}, {"params": {"format": "html"}}):
        page = get(client, run, which, **options)
        assert page.status_code == 200, page.text
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["content-disposition"].startswith("inline; filename=")
        assert page.headers["content-disposition"].endswith('bias_report.html"')
        assert page.text.lower().startswith("<!doctype html>")
    # The texts of what it got wrong are there, and of nothing else.
    wrong = [row for row in run.of("test") if row.label == "normal" and row.group == "lgbtq"][:4]
    assert len(wrong) == 4
    for row in wrong:
        assert row.text in page.text.replace("&#39;", "'").replace("&#34;", '"')
    assert run.of("test")[-1].text not in page.text


@pytest.mark.parametrize("which", ["own", "again"])
def test_two_tables(client, run, which):
    answer = get(client, run, which, headers={"accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert {row["persona_tag"] for row in rows} >= {"lgbtq", "mexican", "middle_east"}
    assert 'bias_metrics.csv"' in answer.headers["content-disposition"]
    assert ("table=performance" in answer.headers.get("link", "")) is (which == "own")
    answer = get(client, run, which, params={"format": "csv", "table": "performance"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert "f1_score" in rows[0]
    assert 'performance_metrics.csv"' in answer.headers["content-disposition"]
    assert ("table=bias" in answer.headers.get("link", "")) is (which == "own")


def test_forms_that_there_are_not(client, run):
    url = f"/v1/runs/{run.run_id}/bias-report"
    answer = client.get(url, params={"format": "pdf"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/query/format"
    assert "'csv'" in answer.json()["detail"]
    answer = client.get(url, headers={"accept": "application/pdf"})
    assert (answer.status_code, answer.json()["type"]) == (406, "urn:fairtune:not-acceptable")
    assert "text/html" in answer.json()["detail"]
    answer = client.get(url, params={"table": "bias"})
    assert answer.json()["errors"][0]["pointer"] == "/query/table"
    answer = client.get(f"/v1/runs/{run.run_id}/metrics", headers={"accept": "image/png"})
    assert answer.status_code == 406


def test_a_report_of_the_form_before_comes_as_it_is_and_as_a_page_built_anew(
    client, context, dataset_id
):
    run = scored_run(client, context, dataset_id)
    run.certify(wrong_on(run.of("test"), lgbtq=4))
    whole = json.loads(client.get(f"/v1/runs/{run.run_id}/bias-report").content)
    old = {name: whole[name] for name in ("meta", "settings", "caps", "caps_verdict", "min_f1")}
    old["schema_version"] = 1
    content = json.dumps(old).encode()
    run.store_report(content)
    run.succeed()
    url = f"/v1/runs/{run.run_id}/bias-report"
    assert client.get(url).content == content
    page = client.get(url, params={"format": "html"})
    assert page.status_code == 200
    assert "lgbtq" in client.get(url, params={"format": "csv"}).text
    # Without the predictions there is nothing to build it from.
    from service.store.runs import get_evaluation

    with context.database.read() as session:
        key = get_evaluation(session, run.run_id, own(client, run)).key
    (context.store.root / key).unlink()
    answer = client.get(url, params={"format": "html"})
    assert answer.status_code == 409
    assert "format=json" in answer.json()["detail"]
    assert client.get(url).status_code == 200


def test_of_chats_the_last_turn_of_the_user_is_shown(client, context):
    def chats(split, count):
        lines = []
        for number in range(count):
            label = "hate" if number % 2 else "normal"
            lines.append(
                json.dumps(
                    {
                        "messages": [
                            {"role": "system", "content": "Classify."},
                            {"role": "user", "content": f"{split} <b>text</b> {number}"},
                            {"role": "assistant", "content": label},
                        ],
                        "label": label,
                        "group": "g",
                    }
                )
            )
        return "\n".join(lines).encode()

    files = {split: chats(split, 20) for split in ("train", "test")}
    made = client.post("/v1/datasets", data={"name": "chats"}, files=files)
    assert made.status_code == 201, made.text
    run = scored_run(client, context, made.json()["id"], fairness={"caps": []})
    run.certify(wrong_on(run.of("test"), g=1))
    run.succeed()
    shown = report(again(client, run))["shown"]
    assert (shown["system"], shown["user"]) == (None, None)
    page = again(client, run, params={"format": "html"}).text
    assert "test &lt;b&gt;text&lt;/b&gt; 0" in page
    assert "<b>text" not in page
    assert "Classify." not in page
