"""Runs that are scored and certified, and the calls for their reports."""

from service.fairness.schema import BiasReport
from tests.support.scored_runs import ScoredRun, wrong_on

CAPS = [{"group": "lgbtq", "metric": "fpr", "max": 0.2}]


def scored_run(client, context, dataset_id, **body) -> ScoredRun:
    body = {"dataset_id": dataset_id, "base_model": "tiny", "fairness": {"caps": CAPS}} | body
    answer = client.post("/v1/runs", json=body)
    assert answer.status_code == 201, answer.text
    return ScoredRun(context, answer.json()["id"])


def evaluations(client, run):
    found = client.get(f"/v1/runs/{run.run_id}/evaluations").json()["data"]
    # Newest first: of several of one target and split the newest is meant.
    return {(one["target"], one["split"]): one["id"] for one in reversed(found)}


def own(client, run) -> str:
    return evaluations(client, run)["adapter", "test"]


def again(client, run, evaluation=None, params=None, headers=None, **body):
    evaluation = evaluation or own(client, run)
    url = f"/v1/runs/{run.run_id}/evaluations/{evaluation}/reports"
    return client.post(url, json=body, params=params, headers=headers)


def report(answer) -> dict:
    assert answer.status_code == 200, answer.text
    BiasReport.model_validate_json(answer.content)
    return answer.json()


def certified_run(client, context, dataset_id) -> ScoredRun:
    """Succeeded, with four false alarms in lgbtq; the base model has thirty."""
    made = scored_run(client, context, dataset_id)
    rows = made.of("test")
    made.certify(wrong_on(rows, lgbtq=4), base=wrong_on(rows, lgbtq=30))
    made.succeed()
    return made
