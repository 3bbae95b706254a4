"""Which request queued a job: the row says so, and the worker that claims it hears of it."""

from service.domain.states import FailureReason
from service.store import job_control, jobs
from service.store.runs import get_run


def job_of(context, run_id):
    with context.database.read() as session:
        return get_run(session, run_id)[1]


def test_a_job_knows_the_request_that_queued_it_last(client, context, dataset_id):
    body = {"dataset_id": dataset_id, "preset": "quick_test", "base_model": "tiny"}

    def post(path, request_id, **body):
        answer = client.post(f"/v1/runs{path}", headers={"X-Request-ID": request_id}, **body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    run_id = post("", "first", json=body)["id"]
    assert job_of(context, run_id).request_id == "first"
    post(f"/{run_id}/pause", "pause")
    assert job_of(context, run_id).request_id == "first"
    post(f"/{run_id}/resume", "resume")
    assert job_of(context, run_id).request_id == "resume"
    with context.database.write() as session:
        claim = jobs.claim(session, job_of(context, run_id).id, "a worker", 60)
        assert claim is not None
        assert claim.request_id == "resume"
    with context.database.write() as session:
        # A job that a worker returns to the queue stays that request's.
        job = jobs.lock_for_worker(session, claim)
        jobs.return_to_queue(session, job, claim.token, FailureReason.CRASHED, "x", free=False)
    assert job_of(context, run_id).request_id == "resume"
    for _ in range(2):
        with context.database.write() as session:
            claim = jobs.claim(session, job_of(context, run_id).id, "a worker", 60)
            job = jobs.lock_for_worker(session, claim)
            jobs.return_to_queue(session, job, claim.token, FailureReason.CRASHED, "x", free=False)
    assert job_of(context, run_id).status == "failed"
    post(f"/{run_id}/retry", "retry")
    assert job_of(context, run_id).request_id == "retry"
    clone = post(f"/{run_id}/clone", "clone", json={})["id"]
    assert job_of(context, clone).request_id == "clone"


def test_what_no_request_asks_for_leaves_it_as_it_is(context, run_id):
    with context.database.write() as session:
        job = get_run(session, run_id)[1]
        job_control.pause(session, job)
        job_control.resume(session, job)
    assert (job_of(context, run_id).request_id or "").startswith("req_")  # the POST's
