"""Pause, resume, cancel, retry and clone, on each database."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.domain.job_kinds import KINDS
from service.domain.states import FailureReason, JobStatus
from service.queue import celery_app
from service.store import jobs
from tests.support.fake_worker import Worker

pytestmark = pytest.mark.both_databases


def post(client, run_id, what, **parameters):
    return client.post(f"/v1/runs/{run_id}/{what}", params=parameters)


def statuses(client, run_id):
    events = client.get(f"/v1/runs/{run_id}/events").json()["data"]
    return [event["data"]["status"] for event in events if event["type"] == "status"]


def give_back(worker, *, free=True):
    """What a supervisor does when its program has ended before its time."""
    with worker.context.database.write() as session:
        job = jobs.lock_for_worker(session, worker.current)
        return jobs.return_to_queue(
            session, job, worker.current.token, FailureReason.CRASHED, "it fell", free=free
        )


def fail(worker, reason=FailureReason.CRASHED):
    with worker.context.database.write() as session:
        job = jobs.get(session, worker.job_id)
        assert jobs.switch_status(
            session, job, JobStatus.FAILED, failure_reason=reason, failure_detail="it fell"
        )


def save(worker, step, **fields):
    """A checkpoint of `step`, with metrics up to there."""
    values = {"loss": 1.0 / step}
    files = [worker.file(f"checkpoints/checkpoint-{step}/adapter.bin", b"weights" * step)]
    files[0]["path"] = "adapter.bin"
    return worker.ship(
        worker.line(type="metrics", step=step, epoch=step / 10, values=values),
        worker.line(
            type="checkpoint",
            step=step,
            epoch=step / 10,
            path=f"checkpoints/checkpoint-{step}",
            files=files,
            metrics={},
            best_step=None,
        ),
    )


def messages(context) -> int:
    return len(list((celery_app.folder_of(context.settings) / "messages").glob("*.msg")))


def test_a_queued_run_is_paused_at_once_and_resumed_into_the_queue(context, client, run_id):
    paused = post(client, run_id, "pause").json()
    assert (paused["status"], paused["queue_position"], paused["requested"]) == (
        "paused",
        None,
        None,
    )
    assert post(client, run_id, "pause").json()["status"] == "paused"
    before = messages(context)
    resumed = post(client, run_id, "resume").json()
    assert (resumed["status"], resumed["queue_position"]) == ("queued", 1)
    assert messages(context) == before + 1
    assert post(client, run_id, "resume").json()["status"] == "queued"
    assert messages(context) == before + 1
    assert statuses(client, run_id) == ["queued", "paused", "queued"]
    assert Worker(context, run_id).current.attempt == 1


def test_a_paused_job_cannot_be_claimed_and_no_message_is_sent_for_it(context, client, run_id):
    post(client, run_id, "pause")
    with context.database.write() as session:
        assert jobs.queued_kinds(session) == set()
        assert jobs.claim_next(session, "a worker", 60, KINDS) is None
    with pytest.raises(AssertionError):
        Worker(context, run_id)


def test_a_running_run_pauses_when_its_worker_gives_it_back(context, client, run_id, worker):
    asked = post(client, run_id, "pause").json()
    assert (asked["status"], asked["requested"]) == ("running", "pause")
    with context.database.write() as session:
        assert jobs.renew(session, worker.current, 60) == "pause"
    assert give_back(worker) == "paused"
    run = client.get(f"/v1/runs/{run_id}").json()
    assert (run["status"], run["requested"], run["attempts"]) == ("paused", None, 0)


def test_a_pause_that_has_not_happened_yet_is_taken_back(context, client, run_id, worker):
    post(client, run_id, "pause")
    resumed = post(client, run_id, "resume").json()
    assert (resumed["status"], resumed["requested"]) == ("running", None)
    with context.database.write() as session:
        assert jobs.renew(session, worker.current, 60) is None
    assert give_back(worker) == "queued"  # the program had been told already: it goes on elsewhere


def test_a_cancel_overrides_a_pause_but_not_the_other_way_round(client, run_id, worker):
    post(client, run_id, "pause")
    assert post(client, run_id, "cancel").json()["requested"] == "cancel"
    for what in ("pause", "resume"):
        refused = post(client, run_id, what)
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:fairtune:conflict")
        assert "being cancelled" in refused.json()["detail"]
    assert give_back(worker) == "cancelled"


def test_a_paused_run_can_be_cancelled(client, run_id):
    post(client, run_id, "pause")
    assert post(client, run_id, "cancel").json()["status"] == "cancelled"


@pytest.mark.parametrize(
    ("status", "what", "remedy"),
    [
        ("succeeded", "pause", "nothing to pause"),
        ("succeeded", "resume", "clone"),
        ("succeeded", "retry", "clone"),
        ("succeeded", "cancel", "nothing to cancel"),
        ("failed", "pause", "nothing to pause"),
        ("failed", "resume", "retry"),
        ("failed", "cancel", "nothing to cancel"),
        ("cancelled", "pause", "nothing to pause"),
        ("cancelled", "resume", "clone"),
        ("cancelled", "retry", "clone"),
    ],
)
def test_what_a_state_forbids_is_a_conflict_with_a_remedy(
    context, client, run_id, worker, status, what, remedy
):
    with context.database.write() as session:
        job = jobs.get(session, worker.job_id)
        values = {"failure_reason": "crashed", "failure_detail": "it fell"}
        jobs.switch_status(
            session, job, JobStatus(status), **(values if status == "failed" else {})
        )
    answer = post(client, run_id, what)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:fairtune:conflict")
    assert remedy in answer.json()["detail"]
    assert client.get(f"/v1/runs/{run_id}").json()["status"] == status


@pytest.mark.parametrize("what", ["cancel", "pause", "resume", "retry"])
def test_an_unknown_run_is_404(client, what):
    assert post(client, "run_none", what).status_code == 404


def test_a_retry_starts_with_all_attempts_and_the_newest_checkpoint(
    context, client, run_id, worker
):
    save(worker, 4)
    with context.database.write() as session:
        job = jobs.get(session, worker.job_id)
        job.attempts, job.attempts_since_checkpoint, job.train_batch_size = 20, 3, 1
    fail(worker)
    before = messages(context)
    run = post(client, run_id, "retry").json()
    assert (run["status"], run["failure"], run["attempts"]) == ("queued", None, 0)
    assert run["train_batch_size"] is None
    assert messages(context) == before + 1
    assert [one["step"] for one in client.get(f"/v1/runs/{run_id}/checkpoints").json()["data"]] == [
        4
    ]
    assert run["metrics"] == {"loss": 0.25}
    again = post(client, run_id, "retry")
    assert again.status_code == 409
    assert "queued" in again.json()["detail"]
    worker.current = worker.claim()
    assert give_back(worker, free=False) == "queued"  # not failed: the caps began anew


def test_a_retry_from_the_start_forgets_what_was_learned(context, client, run_id, worker):
    save(worker, 4)
    fail(worker)
    run = post(client, run_id, "retry", from_start=True).json()
    assert (run["status"], run["step"], run["metrics"]) == ("queued", 0, {})
    assert client.get(f"/v1/runs/{run_id}/checkpoints").json()["data"] == []
    assert client.get(f"/v1/runs/{run_id}/metrics").json()["series"] == {}
    assert not [path for path in (context.store.root / "runs").rglob("*") if path.is_file()]
    last = client.get(f"/v1/runs/{run_id}/events").json()["data"][-1]
    assert (last["type"], last["data"]) == ("rewound", {"step": 0})


def test_a_retry_from_the_start_leaves_no_result_of_other_weights(context, client, run_id, worker):
    worker.ship(
        worker.line(type="artifact", file=worker.file("bias_report.json", b"{}")),
        worker.line(type="artifact", file=worker.file("training.log", b"log\n")),
    )
    fail(worker)
    assert client.get(f"/v1/runs/{run_id}/bias-report").status_code == 200
    post(client, run_id, "retry", from_start=True)
    assert client.get(f"/v1/runs/{run_id}/bias-report").status_code == 409
    assert client.get(f"/v1/runs/{run_id}/logs").text == "log\n"


@pytest.mark.parametrize("what", ["cancel", "pause", "resume", "retry"])
def test_a_body_that_would_be_ignored_is_refused(client, run_id, what):
    url = f"/v1/runs/{run_id}/{what}"
    answer = client.post(url, json={"from_start": True})
    assert answer.status_code == 422
    assert "query parameter" in answer.json()["detail"]
    assert client.post(url, json={}).status_code in (200, 409)


def test_pauses_cost_no_attempts(context, client, run_id):
    """However often; and a checkpoint on the way does not make more of them than there are."""
    worker = Worker(context, run_id)
    for step in range(1, 25):
        save(worker, step)
        post(client, run_id, "pause")
        assert give_back(worker) == "paused"
        post(client, run_id, "resume")
        worker.current, worker.seq = worker.claim(), 0
    assert give_back(worker, free=False) == "queued"
    for left in ("queued", "failed"):
        worker.current = worker.claim()
        assert give_back(worker, free=False) == left


def test_a_misspelt_parameter_retries_nothing(client, run_id, worker):
    fail(worker)
    assert post(client, run_id, "retry", fromstart=True).status_code == 422
    assert client.get(f"/v1/runs/{run_id}").json()["status"] == "failed"


def test_going_back_supersedes_what_lies_past_it(context, client, run_id, worker):
    for step in (2, 4, 6):
        save(worker, step)
    dropped = worker.ship(worker.line(type="rewound", step=4))
    assert [one.step for one in dropped] == [6]
    series = client.get(f"/v1/runs/{run_id}/metrics").json()["series"]["loss"]
    assert [point["step"] for point in series] == [2, 4]
    run = client.get(f"/v1/runs/{run_id}").json()
    assert (run["step"], run["metrics"]) == (4, {"loss": 0.25})
    save(worker, 6)
    series = client.get(f"/v1/runs/{run_id}/metrics").json()["series"]["loss"]
    assert [point["step"] for point in series] == [2, 4, 6]


def test_going_back_and_saving_again_in_one_batch_keeps_the_new_files(client, run_id, worker):
    save(worker, 2)
    save(worker, 4)
    files = [worker.file("checkpoints/checkpoint-4/adapter.bin", b"again")]
    files[0]["path"] = "adapter.bin"
    again = worker.line(
        type="checkpoint",
        step=4,
        epoch=0.4,
        path="checkpoints/checkpoint-4",
        files=files,
        metrics={},
        best_step=None,
    )
    assert worker.ship(worker.line(type="rewound", step=2), again) == []
    got = client.get(f"/v1/runs/{run_id}/checkpoints/4/download", params={"path": "adapter.bin"})
    assert got.content == b"again"


def test_a_step_saved_twice_by_one_attempt_keeps_its_files(client, run_id, worker):
    save(worker, 2)
    assert save(worker, 2) == []
    got = client.get(f"/v1/runs/{run_id}/checkpoints/2/download", params={"path": "adapter.bin"})
    assert got.content == b"weights" * 2


def test_a_clone_is_the_same_specification_with_overrides(context, client, run_id):
    source = client.get(f"/v1/runs/{run_id}").json()
    answer = client.post(
        f"/v1/runs/{run_id}/clone",
        json={"name": "slower", "training": {"learning_rate": 1e-5, "max_steps": 7}},
    )
    assert answer.status_code == 201
    clone = answer.json()
    assert answer.headers["Location"] == f"/v1/runs/{clone['id']}"
    assert clone["id"] != run_id
    assert (clone["status"], clone["cloned_from"], clone["name"]) == ("queued", run_id, "slower")
    changed = {"learning_rate": 1e-5, "max_steps": 7, "num_train_epochs": None}
    assert clone["spec"]["training"] == source["spec"]["training"] | changed
    for field in set(source["spec"]) - {"name", "training"}:
        assert clone["spec"][field] == source["spec"][field]
    assert client.get(f"/v1/runs/{run_id}").json()["spec"] == source["spec"]


def test_a_clone_without_a_body_is_the_same_again(client, run_id):
    clone = client.post(f"/v1/runs/{run_id}/clone").json()
    source = client.get(f"/v1/runs/{run_id}").json()
    assert clone["spec"] == source["spec"]
    unnamed = client.post(f"/v1/runs/{run_id}/clone", json={"name": None}).json()
    assert unnamed["name"] == source["name"] == "quick_test on tiny"
    # A clone of a clone says what it was made from.
    second = client.post(f"/v1/runs/{clone['id']}/clone", json={}).json()
    assert second["cloned_from"] == clone["id"]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"preset": "default"}, "/preset"),
        ({"lora": {"rank": 3}}, "/lora/rank"),
        ({"training": {"learning_rate": -1}}, "/training/learning_rate"),
        ({"dataset_id": "ds_none"}, "/dataset_id"),
        ({"fairness": {"caps": [{"group": "martians", "max": 0.1}]}}, "/fairness/caps/0/group"),
    ],
)
def test_a_bad_clone_is_refused_naming_the_field(client, run_id, changes, pointer):
    answer = client.post(f"/v1/runs/{run_id}/clone", json=changes)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert len(client.get("/v1/runs").json()["data"]) == 1


def test_clones_are_planned_by_a_dry_run_and_made_once_per_key(client, run_id):
    url = f"/v1/runs/{run_id}/clone"
    plan = client.post(f"{url}?dry_run=true", json={"training": {"max_steps": 3}})
    assert (plan.status_code, plan.json()["total_steps"]) == (200, 3)
    key = {"Idempotency-Key": "c1"}
    first, again = (client.post(url, json={"seed": 5}, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    other = client.post(url, json={"seed": 6}, headers=key)
    assert other.status_code == 422
    assert len(client.get("/v1/runs").json()["data"]) == 2
    assert client.post("/v1/runs/run_none/clone", json={}).status_code == 404


def test_eight_at_once_steer_one_way(context, client, run_id, worker):
    """Whatever the order, the job ends in one state with its events in agreement."""
    barrier = threading.Barrier(8)

    def steer(number):
        barrier.wait()
        what = ("pause", "cancel", "resume")[number % 3]
        return post(client, run_id, what).status_code

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(steer, range(8)))
    assert set(answers) <= {200, 409}
    assert client.get(f"/v1/runs/{run_id}").json()["requested"] == "cancel"
    assert give_back(worker) == "cancelled"
    assert statuses(client, run_id) == ["queued", "running", "cancelled"]


def test_twelve_retries_at_once_queue_it_once(client, run_id, worker):
    fail(worker)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: post(client, run_id, "retry").status_code, range(12)))
    assert sorted(answers) == [200] + [409] * 11
    assert statuses(client, run_id) == ["queued", "running", "failed", "queued"]
