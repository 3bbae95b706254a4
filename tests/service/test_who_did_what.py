"""The name of the API key stands in what it created and in the events of its requests."""

import pytest

from service.domain.access import Role
from service.domain.states import FailureReason, JobStatus
from service.store import jobs
from service.store.runs import get_run
from service.usecases import api_keys as use_cases
from tests.support.api_keys import bearer, make_keys
from tests.support.fake_worker import Worker


@pytest.fixture
def alice(client, context, dataset_id):
    """The client with alice's key; the dataset was made while access was open."""
    use_cases.create(context.database, "root", Role.ADMIN)
    client.headers.update(bearer(use_cases.create(context.database, "alice", Role.OPERATOR).token))
    return client


@pytest.fixture
def bob(alice, context) -> dict[str, str]:
    return bearer(use_cases.create(context.database, "bob", Role.OPERATOR).token)


@pytest.fixture
def started(alice, dataset_id) -> str:
    body = {"dataset_id": dataset_id, "preset": "quick_test", "base_model": "tiny"}
    run = alice.post("/v1/runs", json=body).json()
    assert run["created_by"] == "alice"
    return run["id"]


def told(client, run_id):
    """The statuses and who is named with each."""
    events = client.get(f"/v1/runs/{run_id}/events").json()["data"]
    return [(e["data"]["status"], e["data"].get("by")) for e in events if e["type"] == "status"]


def give_back(context, worker, *, free=True):
    with context.database.write() as session:
        job = jobs.lock_for_worker(session, worker.current)
        return jobs.return_to_queue(
            session, job, worker.current.token, FailureReason.CRASHED, "it fell", free=free
        )


def test_making_pausing_resuming_and_cancelling_name_who_asked(alice, bob, started):
    for what, headers in (("pause", bob), ("resume", {}), ("cancel", bob)):
        assert alice.post(f"/v1/runs/{started}/{what}", headers=headers).status_code == 200
    expected = [("queued", "alice"), ("paused", "bob"), ("queued", "alice"), ("cancelled", "bob")]
    assert told(alice, started) == expected


@pytest.mark.parametrize(("what", "status"), [("cancel", "cancelled"), ("pause", "paused")])
def test_what_is_asked_of_a_running_run_is_named_when_it_happens(
    alice, bob, context, started, what, status
):
    worker = Worker(context, started)
    alice.post(f"/v1/runs/{started}/{what}", headers=bob)
    alice.post(f"/v1/runs/{started}/{what}")  # requested already
    assert give_back(context, worker) == status
    assert told(alice, started) == [("queued", "alice"), ("running", None), (status, "bob")]
    with context.database.read() as session:
        job = get_run(session, started)[1]
    assert (job.request, job.requested_by) == (None, None)


def test_a_cancel_after_a_pause_is_its_own_askers(alice, bob, context, started):
    worker = Worker(context, started)
    alice.post(f"/v1/runs/{started}/pause", headers=bob)
    alice.post(f"/v1/runs/{started}/cancel")
    give_back(context, worker)
    assert told(alice, started)[-1] == ("cancelled", "alice")


def test_nobody_is_named_for_what_nobody_asked(alice, bob, context, started):
    worker = Worker(context, started)
    alice.post(f"/v1/runs/{started}/pause", headers=bob)
    alice.post(f"/v1/runs/{started}/resume")  # takes the pause back
    with context.database.write() as session:
        job = jobs.get(session, worker.job_id)
        assert job.requested_by is None
        job.requested_by = "bob"  # as when a server of the version before took the request back
        session.add(job)
    assert give_back(context, worker) == "queued"
    assert told(alice, started)[-1] == ("queued", None)


def test_a_run_that_succeeded_before_it_could_be_cancelled_names_nobody(
    alice, bob, context, started
):
    worker = Worker(context, started)
    alice.post(f"/v1/runs/{started}/cancel", headers=bob)
    with context.database.write() as session:
        job = jobs.get(session, worker.job_id)
        assert jobs.switch_status(session, job, JobStatus.SUCCEEDED)
        assert job.requested_by is None
    assert told(alice, started)[-1] == ("succeeded", None)


def test_retrying_and_cloning_name_who_asked(alice, bob, context, started):
    Worker(context, started)
    with context.database.write() as session:
        job = get_run(session, started)[1]
        jobs.switch_status(
            session,
            job,
            JobStatus.FAILED,
            failure_reason=FailureReason.CRASHED,
            failure_detail="it fell",
        )
    alice.post(f"/v1/runs/{started}/retry", headers=bob)
    assert told(alice, started)[-1] == ("queued", "bob")
    cloned = alice.post(f"/v1/runs/{started}/clone", headers=bob).json()
    assert cloned["created_by"] == "bob"
    assert told(alice, cloned["id"]) == [("queued", "bob")]


def test_while_access_is_open_nobody_is_named(client, run_id):
    assert client.get(f"/v1/runs/{run_id}").json()["created_by"] is None
    client.post(f"/v1/runs/{run_id}/cancel")
    events = client.get(f"/v1/runs/{run_id}/events").json()["data"]
    assert [event["data"]["status"] for event in events] == ["queued", "cancelled"]
    assert all("by" not in event["data"] for event in events)


def test_an_idempotency_key_is_its_api_keys_own(client, context, dataset_id, sample):
    tokens = make_keys(context.database)
    body = {"dataset_id": dataset_id, "preset": "quick_test"}

    def made(role, url, **content):
        headers = bearer(tokens[role]) | {"Idempotency-Key": "k"}
        answer = client.post(url, headers=headers, **content)
        return answer.status_code, answer.json()["id"]

    for url, content in (
        ("/v1/runs", {"json": body}),
        ("/v1/datasets", {"data": {"name": "d"}, "files": sample}),
    ):
        status, first = made(Role.OPERATOR, url, **content)
        assert status == 201
        assert made(Role.OPERATOR, url, **content) == (200, first)
        status, other = made(Role.ADMIN, url, **content)
        assert status == 201
        assert other != first
