"""Files without a row are removed in the end, however long the store was unreachable."""

import random
import threading

import pytest
from sqlalchemy import text

from service.artifacts.directory import Directory
from service.domain.job_kinds import EVALUATE, MERGE, PREDICT
from service.domain.states import JobStatus
from service.queue.sweep import Sweeper
from service.store import jobs, orphaned_files, program_events
from service.store.database import db_now
from service.store.orphaned_files import OrphanedFiles
from service.store.tables import Artifact, Checkpoint
from service.usecases import retention
from tests.support.attempts import House
from tests.support.installation import wait_until

LATE = (
    "log/223/training.log",
    "checkpoints/checkpoint-2/adapter.bin",
    "adapter/adapter_model.safetensors",
    "merged/model.safetensors",
    "evaluations/final.parquet",
)


@pytest.fixture
def house(context, run_id, tmp_path, monkeypatch) -> House:
    monkeypatch.setattr("worker.supervision.supervisor._LOG_RETRY_SECONDS", 0.2)
    monkeypatch.setattr(orphaned_files, "_PAUSE_SECONDS", (0.05,))
    return House(context, run_id, tmp_path, monkeypatch)


@pytest.fixture
def away(monkeypatch):
    """While it is set, nothing can be listed or removed: files can be stored."""
    is_away = threading.Event()

    def failing(method):
        def call(*args):
            if is_away.is_set():
                raise OSError(113, "no route to host")
            return method(*args)

        return call

    for name in ("entries", "remove", "remove_tree", "remove_except"):
        monkeypatch.setattr(Directory, name, failing(getattr(Directory, name)))
    return is_away


def put(context, key, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"x")
    context.store.put_file(source, key)


def exists(context, *keys):
    return [key for key in keys if (context.store.root / key).exists()]


def test_the_end_of_an_attempt_waits_for_no_store_and_its_orphans_go_later(
    house, context, tmp_path, away
):
    attempt = house.attempt('log("one"); save(2)')
    stray = f"{program_events.prefix_of(attempt.claim)}/log/0/training.log"
    put(context, stray, tmp_path)
    away.set()
    attempt.run()
    assert house.job.status == "succeeded"
    assert exists(context, stray)
    away.clear()
    wait_until(lambda: not exists(context, stray))
    wait_until(lambda: {one.key for one in context.store.entries("runs")} == named(context, house))


def named(context, house):
    with context.database.read() as session:
        return program_events.keys_of(session, house.run_id)


def test_the_sweep_waits_for_no_store_and_the_orphans_of_a_lost_worker_go_later(
    context, worker, away, monkeypatch
):
    monkeypatch.setattr(orphaned_files, "_PAUSE_SECONDS", (0.05,))
    worker.file("checkpoints/checkpoint-9/adapter.bin", b"unrecorded")
    stray = f"{program_events.prefix_of(worker.current)}/checkpoints/checkpoint-9/adapter.bin"
    with context.database.write() as session:
        jobs.renew(session, worker.current, -1)
    sweeper = Sweeper(context.settings, context.database, context.store, context.celery)
    sweeper._renewal_seconds = 0
    away.set()
    sweeper.sweep()
    assert exists(context, stray)
    away.clear()
    wait_until(lambda: not exists(context, stray))


def test_a_store_that_hangs_does_not_hang_the_sweep(context, worker, monkeypatch):
    monkeypatch.setattr(orphaned_files, "_WAIT_SECONDS", 0.1)
    go = threading.Event()

    def hang(*_):
        go.wait()
        return []

    monkeypatch.setattr(Directory, "entries", hang)
    monkeypatch.setattr(Directory, "remove_except", hang)
    with context.database.write() as session:
        jobs.renew(session, worker.current, -1)
    sweeper = Sweeper(context.settings, context.database, context.store, context.celery)
    sweeper._renewal_seconds = 0
    thread = threading.Thread(target=sweeper.sweep)
    thread.start()
    thread.join(20)
    hangs = thread.is_alive()
    go.set()
    thread.join()
    assert not hangs


def test_expired_checkpoints_whose_files_could_not_be_removed_go_later(
    client, context, run_id, worker, away, monkeypatch
):
    monkeypatch.setattr(orphaned_files, "_PAUSE_SECONDS", (0.05,))
    file = worker.file("checkpoints/checkpoint-3/adapter.bin", b"weights")
    file["path"] = "adapter.bin"
    path = "checkpoints/checkpoint-3"
    checkpoint = {"step": 3, "epoch": 1, "path": path, "files": [file], "metrics": {}}
    worker.ship(worker.line(type="checkpoint", best_step=None, **checkpoint))
    key = f"{program_events.prefix_of(worker.current)}/{path}/adapter.bin"
    with context.database.write() as session:
        job = jobs.get(session, worker.job_id)
        token = worker.current.token
        jobs.switch_status(session, job, JobStatus.SUCCEEDED, expected_token=token)
        session.execute(Checkpoint.__table__.update().values(created_at=db_now(-2 * 86400)))
    away.set()
    settings = context.settings.model_copy(update={"checkpoint_days": 1})
    Sweeper(settings, context.database, context.store, context.celery).sweep()
    assert client.get(f"/v1/runs/{run_id}/checkpoints").json()["data"] == []
    assert exists(context, key)
    away.clear()
    wait_until(lambda: not exists(context, key))


@pytest.mark.parametrize("path", LATE)
def test_an_upload_that_the_store_completes_after_the_end_is_removed(
    house, context, tmp_path, monkeypatch, path
):
    """A request that its client had given up: the store may keep working on it."""
    whole, refused = type(context.store).put_file, iter([True])

    def put_file(store, source, *args, **kwargs):
        if next(refused, False):
            raise OSError(110, "timed out")
        return whole(store, source, *args, **kwargs)

    monkeypatch.setattr("worker.supervision.supervisor._LATE_UPLOAD_SECONDS", 0.5, raising=False)
    attempt = house.attempt("save(2)")
    late = f"{program_events.prefix_of(attempt.claim)}/{path}.late"
    monkeypatch.setattr(type(context.store), "put_file", put_file)
    attempt.run()
    assert house.job.status == "succeeded"
    put(context, late, tmp_path)
    wait_until(lambda: not exists(context, late))
    assert {one.key for one in context.store.entries("runs")} == named(context, house)


def test_a_file_that_comes_after_its_run_was_deleted_is_removed(context, worker, run_id, tmp_path):
    with context.database.write() as session:
        job = jobs.get(session, worker.job_id)
        token = worker.current.token
        jobs.switch_status(session, job, JobStatus.SUCCEEDED, expected_token=token)
    retention.delete_run(context.database, context.store, run_id)
    late = f"{program_events.prefix_of(worker.current)}/training.log"
    put(context, late, tmp_path)
    OrphanedFiles(context.database, context.store).remove(run_id)
    assert not exists(context, late)


@pytest.mark.parametrize("seed", range(8))
def test_files_of_ended_attempts_without_a_row_are_removed_and_no_others(
    context, run_id, tmp_path, seed
):
    chance = random.Random(seed)
    expected, removed = set(), set()
    with context.database.write() as session:
        others = [
            jobs.create(session, run_id, chance.choice((EVALUATE, MERGE, PREDICT))).id
            for _ in range(chance.randrange(4))
        ]
        own = session.execute(text("SELECT id FROM job WHERE run_id = :run"), {"run": run_id})
        for job_id in {*others, *own.scalars()}:
            token, status = chance.randrange(1, 4), chance.choice(list(JobStatus))
            session.execute(
                text("UPDATE job SET token = :token, status = :status WHERE id = :id"),
                {"token": token, "status": status.value, "id": job_id},
            )
            for attempt in range(1, token + 2):  # the last is one that has just been claimed
                has_ended = attempt < token or (
                    attempt == token and status is not JobStatus.RUNNING
                )
                for name in ("a", "log/1/b", ".c." + "0" * 32 + ".part"):
                    key = f"{program_events.prefix(run_id, job_id, attempt)}/{name}"
                    put(context, key, tmp_path)
                    is_recorded = chance.random() < 0.4 and not name.startswith(".")
                    if is_recorded:
                        session.add(
                            Artifact(
                                run_id=run_id,
                                path=f"{job_id}/{attempt}/{name}",
                                job_id=job_id,
                                token=attempt,
                                key=key,
                                size=1,
                                sha256="0" * 64,
                            )
                        )
                    (removed if has_ended and not is_recorded else expected).add(key)
    put(context, f"runs/{run_id}x/job/1/a", tmp_path)  # of another run
    OrphanedFiles(context.database, context.store).remove(run_id)
    assert {one.key for one in context.store.entries(f"runs/{run_id}")} == expected
    assert not exists(context, *removed)
    assert exists(context, f"runs/{run_id}x/job/1/a")
