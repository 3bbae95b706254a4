"""What a worker ships is what the API shows; files stay a run's own; stale tokens are refused."""

import csv
import io
import threading
import time

import pytest
from sqlmodel import select

from service.domain.job_kinds import EVALUATE
from service.domain.states import FailureReason, JobStatus
from service.queue.sweep import Sweeper
from service.store import jobs, program_events
from service.store.jobs import Fenced
from service.store.tables import Job
from tests.support.fake_worker import Worker

pytestmark = pytest.mark.both_databases


def checkpoint(worker, step, best_step, **fields):
    files = [worker.file(f"checkpoints/checkpoint-{step}/adapter.bin", b"weights" * step)]
    files[0]["path"] = "adapter.bin"
    return worker.line(
        type="checkpoint",
        step=step,
        epoch=float(step),
        path=f"checkpoints/checkpoint-{step}",
        files=files,
        metrics={"eval_loss": 1.0 / step},
        best_step=best_step,
        **fields,
    )


def finish(context, worker, to=JobStatus.SUCCEEDED, **values):
    with context.database.write() as session:
        job = jobs.get(session, worker.job_id)
        assert jobs.switch_status(session, job, to, expected_token=worker.current.token, **values)


def test_progress_and_metrics_are_shown(client, run_id, worker):
    worker.ship(
        worker.line(type="phase", phase="training"),
        worker.line(
            type="progress",
            step=3,
            total_steps=12,
            epoch=0.25,
            samples_per_second=2.5,
            eta_seconds=40.0,
        ),
        worker.line(type="metrics", step=1, epoch=0.1, values={"loss": 2.0, "learning_rate": 1e-4}),
        worker.line(type="metrics", step=2, epoch=0.2, values={"loss": 1.5}),
    )
    run = client.get(f"/v1/runs/{run_id}").json()
    assert (run["status"], run["phase"], run["step"], run["total_steps"]) == (
        "running",
        "training",
        3,
        12,
    )
    assert (run["percent"], run["samples_per_second"], run["eta_seconds"]) == (30.0, 2.5, 40.0)
    assert run["metrics"] == {"loss": 1.5, "learning_rate": 1e-4}
    series = client.get(f"/v1/runs/{run_id}/metrics", params={"name": "loss"}).json()["series"]
    assert [(point["step"], point["value"]) for point in series["loss"]] == [(1, 2.0), (2, 1.5)]
    table = client.get(
        f"/v1/runs/{run_id}/metrics", headers={"accept": "text/csv"}
    ).text.splitlines()
    assert table == [
        "name,step,epoch,value",
        "learning_rate,1,0.1,0.0001",
        "loss,1,0.1,2.0",
        "loss,2,0.2,1.5",
    ]
    types = [event["type"] for event in client.get(f"/v1/runs/{run_id}/events").json()["data"]]
    assert types == ["status", "status", "phase", "metrics", "metrics"]  # progress is no event


def test_a_series_can_have_any_groups_name(client, run_id, worker):
    odd = 'eval_fpr/a/b, "c" 🙂' + "🙂" * 190
    worker.ship(
        worker.line(type="metrics", step=6, epoch=1.0, values={odd: 0.25, "eval_fpr/b": 0.5}),
        worker.line(type="metrics", step=12, epoch=2.0, values={odd: 0.0}),
        checkpoint(worker, 12, best_step=12).model_copy(update={"metrics": {odd: 0.0}}),
    )
    worker.ship(worker.line(type="metrics", step=12, epoch=2.0, values={odd: 0.125}))
    path = f"/v1/runs/{run_id}/metrics"
    (name, points), *others = client.get(path, params={"name": odd}).json()["series"].items()
    assert (name, others) == (odd, [])
    assert [(point["step"], point["value"]) for point in points] == [(6, 0.25), (12, 0.125)]
    text = client.get(path, params={"format": "csv"}).text
    assert list(csv.reader(io.StringIO(text)))[1:] == [
        [odd, "6", "1.0", "0.25"],
        [odd, "12", "2.0", "0.125"],
        ["eval_fpr/b", "6", "1.0", "0.5"],
    ]
    assert client.get(f"/v1/runs/{run_id}").json()["metrics"] == {odd: 0.125, "eval_fpr/b": 0.5}
    assert client.get(f"/v1/runs/{run_id}/checkpoints/12").json()["metrics"] == {odd: 0.0}
    events = client.get(f"/v1/runs/{run_id}/events").json()["data"]
    first = next(event["data"] for event in events if event["type"] == "metrics")
    assert first["values"] == {odd: 0.25, "eval_fpr/b": 0.5}


def test_the_same_lines_twice_are_recorded_once(client, run_id, worker):
    lines = [worker.line(type="log", message="a"), worker.line(type="log", message="b")]
    worker.ship(*lines[:1])
    worker.ship(*lines)
    worker.ship(*lines)
    events = client.get(f"/v1/runs/{run_id}/events").json()["data"]
    assert [event["data"]["message"] for event in events if event["type"] == "log"] == ["a", "b"]
    assert [event["id"] for event in events] == [1, 2, 3, 4]


def test_going_back_supersedes_what_was_past(client, run_id, worker):
    for step in (1, 2, 3):
        worker.ship(
            worker.line(type="metrics", step=step, epoch=step, values={"loss": float(step)})
        )
    worker.ship(worker.line(type="rewound", step=1))
    worker.ship(worker.line(type="metrics", step=2, epoch=2, values={"loss": 9.0}))
    series = client.get(f"/v1/runs/{run_id}/metrics").json()["series"]["loss"]
    assert [(point["step"], point["value"]) for point in series] == [(1, 1.0), (2, 9.0)]


def test_checkpoints_beyond_the_limit_go_but_never_the_best(context, client, run_id, worker):
    # quick_test keeps one: the newest goes with the best beside it.
    assert worker.ship(checkpoint(worker, 1, best_step=1)) == []
    assert worker.ship(checkpoint(worker, 2, best_step=1)) == []
    dropped = worker.ship(checkpoint(worker, 3, best_step=1))
    assert [row.step for row in dropped] == [2]
    shown = client.get(f"/v1/runs/{run_id}/checkpoints").json()["data"]
    assert [(row["step"], row["is_best"]) for row in shown] == [(1, True), (3, False)]
    got = client.get(f"/v1/runs/{run_id}/checkpoints/3/download", params={"path": "adapter.bin"})
    assert got.content == b"weights" * 3
    assert client.get(f"/v1/runs/{run_id}/checkpoints/2").status_code == 404
    gone = client.get(f"/v1/runs/{run_id}/checkpoints/3/download", params={"path": "../../x"})
    assert gone.status_code == 404


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 10])
@pytest.mark.parametrize("newest_is_best", [True, False])
def test_so_many_checkpoints_are_kept_as_was_asked_for(
    context, client, dataset_id, limit, newest_is_best
):
    body = {"dataset_id": dataset_id, "training": {"save_total_limit": limit}}
    run_id = client.post("/v1/runs", json=body).json()["id"]
    worker = Worker(context, run_id)
    for step in range(1, 13):
        worker.ship(checkpoint(worker, step, best_step=step if newest_is_best else 1))
    kept = [row["step"] for row in client.get(f"/v1/runs/{run_id}/checkpoints").json()["data"]]
    newest = list(range(13 - limit, 13))
    if not newest_is_best:  # the best takes one of the places, but never the newest one's
        newest = [1, *range(13 - max(1, limit - 1), 13)]
    assert kept == newest


def test_artifacts_come_with_ranges_and_entity_tags(client, run_id, worker):
    worker.ship(
        worker.line(type="artifact", file=worker.file("adapter_model.safetensors", b"0123456789"))
    )
    worker.ship(worker.line(type="artifact", file=worker.file("evaluations/base.parquet", b"P")))
    listed = client.get(f"/v1/runs/{run_id}/artifacts").json()["data"]
    assert [row["path"] for row in listed] == [
        "adapter_model.safetensors",
        "evaluations/base.parquet",
    ]
    whole = client.get(f"/v1/runs/{run_id}/artifacts/adapter_model.safetensors")
    assert whole.content == b"0123456789"
    assert whole.headers["etag"] == f'"{listed[0]["sha256"]}"'
    same = client.get(
        f"/v1/runs/{run_id}/artifacts/adapter_model.safetensors",
        headers={"if-none-match": whole.headers["etag"]},
    )
    assert (same.status_code, same.content) == (304, b"")
    head = client.head(f"/v1/runs/{run_id}/artifacts/adapter_model.safetensors")
    assert (head.content, head.headers["content-length"]) == (b"", "10")
    part = client.get(
        f"/v1/runs/{run_id}/artifacts/adapter_model.safetensors", headers={"range": "bytes=4-"}
    )
    assert (part.status_code, part.content) == (206, b"456789")
    for wanted, status in (("Bytes=4-", 206), ("lines=1-2", 200)):  # an unknown unit is ignored
        answer = client.get(
            f"/v1/runs/{run_id}/artifacts/adapter_model.safetensors", headers={"range": wanted}
        )
        assert answer.status_code == status
    for wanted in ("bytes=999999-", "bytes=5-2", "bytes=-0"):
        refused = client.get(
            f"/v1/runs/{run_id}/artifacts/adapter_model.safetensors", headers={"range": wanted}
        )
        assert (refused.status_code, refused.json()["type"]) == (
            416,
            "urn:fairtune:range-not-satisfiable",
        )
    assert client.get(f"/v1/runs/{run_id}/artifacts/evaluations/base.parquet").content == b"P"


@pytest.mark.parametrize(
    "path",
    [
        "../fairtune.db",
        "%2e%2e/%2e%2e/fairtune.db",
        "..%2f..%2ffairtune.db",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "evaluations/../../../x",
        "evaluations%5c..%5cx",
        "x%00y",
        "",
    ],
)
def test_paths_never_leave_the_runs_own_files(client, run_id, worker, path):
    worker.ship(worker.line(type="artifact", file=worker.file("evaluations/base.parquet", b"P")))
    answer = client.get(f"/v1/runs/{run_id}/artifacts/{path}")
    assert answer.status_code == 404


def test_logs_whole_and_tailed(client, run_id, worker):
    assert client.get(f"/v1/runs/{run_id}/logs").text == ""
    worker.ship(
        worker.line(type="artifact", file=worker.file("training.log", b"one\ntwo\nthree\n"))
    )
    assert client.get(f"/v1/runs/{run_id}/logs").text == "one\ntwo\nthree\n"
    longer = worker.file("training.log", b"one\ntwo\nthree\n")  # shipped again as it grows
    worker.ship(worker.line(type="artifact", file=longer))
    for tail, text in {1: "three\n", 2: "two\nthree\n", 9: "one\ntwo\nthree\n"}.items():
        assert client.get(f"/v1/runs/{run_id}/logs", params={"tail": tail}).text == text


def test_a_log_that_a_longer_one_replaces_meanwhile_is_read_all_the_same(
    context, client, run_id, worker, monkeypatch
):
    worker.ship(worker.line(type="artifact", file=worker.file("training.log", b"one\n")))
    whole = context.store.open

    def replaced(_, key):
        monkeypatch.undo()
        (context.store.root / key).unlink()
        worker.ship(worker.line(type="artifact", file=worker.file("training.log", b"one\ntwo\n")))
        return whole(key)

    # What is opened first is gone; the row names another place by then.
    first = program_events.prefix_of(worker.current)
    with context.database.write() as session:
        lost = FailureReason.WORKER_LOST
        jobs.return_to_queue(
            session, jobs.lock_for_worker(session, worker.current), 1, lost, "", free=True
        )
    worker.current, worker.seq = worker.claim(), 0
    assert program_events.prefix_of(worker.current) != first
    monkeypatch.setattr(type(context.store), "open", replaced)
    assert client.get(f"/v1/runs/{run_id}/logs").text == "one\ntwo\n"


def test_a_failure_comes_with_advice(context, client, run_id, worker):
    finish(
        context,
        worker,
        JobStatus.FAILED,
        failure_reason=FailureReason.MODEL_UNAVAILABLE,
        failure_detail="there is no model tiny",
    )
    run = client.get(f"/v1/runs/{run_id}").json()
    assert run["status"] == "failed"
    assert run["failure"]["reason"] == "model_unavailable"
    assert run["failure"]["detail"] == "there is no model tiny"
    assert "models directory" in run["failure"]["advice"]
    assert run["failure"]["retryable"] is True
    report = client.get(f"/v1/runs/{run_id}/bias-report")
    assert (report.status_code, report.json()["type"]) == (409, "urn:fairtune:conflict")
    assert client.post(f"/v1/runs/{run_id}/cancel").status_code == 409


def test_a_claim_is_had_by_one(context, worker):
    assert worker.claim("another") is None


def test_a_stale_token_writes_nothing(context, client, run_id, worker):
    stale = worker.current
    with context.database.write() as session:
        job = jobs.get(session, worker.job_id)
        assert jobs.return_to_queue(
            session, job, stale.token, FailureReason.WORKER_LOST, "", free=True
        )
    fresh = worker.claim("another")
    assert fresh is not None
    assert fresh.token == stale.token + 1
    with pytest.raises(Fenced):
        worker.ship(worker.line(type="log", message="late"), claim=stale)
    with context.database.write() as session:
        with pytest.raises(Fenced):
            jobs.renew(session, stale, 60)
        job = jobs.get(session, worker.job_id)
        assert not jobs.switch_status(session, job, JobStatus.SUCCEEDED, expected_token=stale.token)
    assert client.get(f"/v1/runs/{run_id}").json()["status"] == "running"
    assert "late" not in client.get(f"/v1/runs/{run_id}/events").text


def test_a_cancel_reaches_the_running_worker(context, client, run_id, worker):
    assert client.post(f"/v1/runs/{run_id}/cancel").json()["status"] == "running"
    with context.database.write() as session:
        assert jobs.renew(session, worker.current, 60) == "cancel"
        job = jobs.get(session, worker.job_id)
        to = jobs.return_to_queue(
            session, job, worker.current.token, FailureReason.WORKER_LOST, "", free=True
        )
    assert to == JobStatus.CANCELLED
    assert client.get(f"/v1/runs/{run_id}").json()["status"] == "cancelled"


def test_the_sweep_returns_expired_leases_three_times_then_fails(context, client, run_id, worker):
    sweeper = Sweeper(context.settings, context.database, context.store, context.celery)
    sweeper._renewal_seconds = 0

    def expire():
        with context.database.write() as session:
            jobs.renew(session, worker.current, -1)
        sweeper.sweep()
        return client.get(f"/v1/runs/{run_id}").json()

    sweeper.sweep()
    assert client.get(f"/v1/runs/{run_id}").json()["status"] == "running"  # the lease holds
    for _ in range(2):
        assert expire()["status"] == "queued"
        worker.current = worker.claim()
    run = expire()
    assert (run["status"], run["failure"]["reason"]) == ("failed", "worker_lost")


def test_a_sweep_that_comes_too_late_leaves_the_owner_alone(context, worker):
    """It saw the lease expired, and the owner renewed before it acted."""
    sweeper = Sweeper(context.settings, context.database, context.store, context.celery)
    with context.database.write() as session:
        jobs.renew(session, worker.current, 60)
    sweeper._recover(worker.job_id, worker.current.token, time.monotonic())
    with context.database.read() as session:
        job = jobs.get(session, worker.job_id)
        assert (job.status, job.token) == ("running", worker.current.token)


def test_what_is_expired_for_a_moment_only_is_left_to_its_owner(context, worker, monkeypatch):
    """All leases are, when a machine wakes or a database comes back."""
    clock = [1000.0]
    monkeypatch.setattr("service.queue.sweep.time.monotonic", lambda: clock[0])
    sweeper = Sweeper(context.settings, context.database, context.store, context.celery)

    def look(lease):
        with context.database.write() as session:
            jobs.renew(session, worker.current, lease)
        sweeper.sweep()
        with context.database.read() as session:
            return jobs.get(session, worker.job_id).status

    assert look(-1) == "running"
    clock[0] += 3.9
    assert look(-1) == "running"
    clock[0] += 100
    assert look(60) == "running"  # the owner was there after all: counted from the beginning again
    assert look(-1) == "running"
    clock[0] += 4.1
    assert look(-1) == "queued"


def test_one_job_that_cannot_be_taken_back_does_not_keep_the_sweep_from_the_rest(
    context, worker, monkeypatch
):
    sweeper = Sweeper(context.settings, context.database, context.store, context.celery)
    sweeper._renewal_seconds = 0
    with context.database.write() as session:
        jobs.renew(session, worker.current, -1)
        jobs.create(session, worker.current.run_id, EVALUATE)
    queues = []
    monkeypatch.setattr(
        "service.queue.sweep.celery_app.notify", lambda _, queue: queues.append(queue)
    )
    monkeypatch.setattr(sweeper, "_recover", lambda *_: 1 / 0)
    sweeper.sweep()
    assert queues == ["jobs"]


def test_a_sweep_that_had_to_wait_for_the_database_gives_owners_time(context, worker):
    """Whoever blocked it blocked the owner's renewal too."""
    from service.domain.errors import Unavailable

    sweeper = Sweeper(context.settings, context.database, context.store, context.celery)
    with context.database.write() as session:
        jobs.renew(session, worker.current, -1)
    with pytest.raises(Unavailable, match="kept the sweep waiting"):
        sweeper._recover(
            worker.job_id, worker.current.token, time.monotonic() - context.settings.lease_seconds
        )
    with context.database.read() as session:
        assert jobs.get(session, worker.job_id).status == "running"


def test_the_sweep_removes_what_a_lost_attempt_stored_and_did_not_record(context, worker):
    kept = worker.file("evaluations/base.parquet", b"P")
    worker.ship(worker.line(type="artifact", file=kept))
    worker.file("checkpoints/checkpoint-9/adapter_model.safetensors", b"unrecorded")
    prefix = context.store.root / program_events.prefix_of(worker.current)
    (prefix / ".half.part").write_bytes(b"x")
    with context.database.write() as session:
        jobs.renew(session, worker.current, -1)
    sweeper = Sweeper(context.settings, context.database, context.store, context.celery)
    sweeper._renewal_seconds = 0
    sweeper.sweep()
    left = [path.relative_to(prefix).as_posix() for path in prefix.rglob("*") if path.is_file()]
    assert left == ["evaluations/base.parquet"]
    assert not (prefix / "checkpoints").exists()


def test_the_sweep_removes_what_a_lost_attempt_had_replaced_of_those_before(
    context, client, run_id, worker
):
    """A run that was cancelled meanwhile has no attempt after it that would."""
    worker.ship(worker.line(type="artifact", file=worker.file("training.log", b"one")))
    with context.database.write() as session:
        job = jobs.get(session, worker.job_id)
        lost = FailureReason.WORKER_LOST
        jobs.return_to_queue(session, job, worker.current.token, lost, "", free=True)
    worker.current, worker.seq = worker.claim(lease=-1), 0
    worker.ship(worker.line(type="artifact", file=worker.file("training.log", b"one two")))
    client.post(f"/v1/runs/{run_id}/cancel")
    sweeper = Sweeper(context.settings, context.database, context.store, context.celery)
    sweeper._renewal_seconds = 0
    sweeper.sweep()
    assert client.get(f"/v1/runs/{run_id}").json()["status"] == "cancelled"
    (left,) = (path for path in (context.store.root / "runs").rglob("*") if path.is_file())
    assert left.read_bytes() == b"one two"
    assert client.get(f"/v1/runs/{run_id}/logs").text == "one two"


def test_the_owner_may_renew_an_expired_lease_while_its_token_stands(context, worker):
    with context.database.write() as session:
        jobs.renew(session, worker.current, -1)
        assert jobs.expired(session) == [(worker.job_id, worker.current.token)]
        jobs.renew(session, worker.current, 60)
        assert jobs.expired(session) == []


@pytest.mark.both_databases
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_job_that_a_suspended_worker_locks_holds_up_neither_the_sweep_nor_other_jobs(
    context, worker
):
    """PostgreSQL ends such a transaction after a while, and each that waits for the row in turn."""
    sweeper = Sweeper(context.settings, context.database, context.store, context.celery)
    sweeper._renewal_seconds = 0
    with context.database.write() as session:
        other = jobs.create(session, worker.current.run_id, EVALUATE).id
        jobs.claim(session, other, "another worker", -1)
        jobs.renew(session, worker.current, -1)

    def statuses():
        with context.database.read() as session:
            return [jobs.get(session, job_id).status for job_id in (worker.job_id, other)]

    with context.database.write() as suspended:
        suspended.execute(select(Job.id).where(Job.id == worker.job_id).with_for_update())
        sweeping = threading.Thread(target=sweeper.sweep)
        sweeping.start()
        sweeping.join(5)
        waits = sweeping.is_alive()
        during = statuses()
    sweeping.join()
    assert (waits, during) == (False, ["running", "queued"])
    sweeper.sweep()
    assert statuses() == ["queued", "queued"]
