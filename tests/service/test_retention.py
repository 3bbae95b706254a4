"""Deleting runs, quota, expiry and garbage, on each database; what is cut short can be repeated."""

import os

import pytest
from sqlalchemy import text
from sqlmodel import select
from typer.testing import CliRunner

from service.cli.main import app
from service.domain.errors import Conflict
from service.domain.states import FailureReason, JobStatus
from service.queue.sweep import Sweeper
from service.store import jobs
from service.store import retention as rows
from service.store.database import db_now
from service.store.tables import Checkpoint, Event, Job, Promotion, Run
from service.usecases import retention
from tests.support.fake_worker import Worker

pytestmark = pytest.mark.both_databases

OLD = -60  # a file is older than that as soon as it is there


def save(worker, step, best=None):
    file = worker.file(f"checkpoints/checkpoint-{step}/adapter.bin", b"w" * step)
    worker.ship(
        worker.line(
            type="checkpoint",
            step=step,
            epoch=step,
            path=f"checkpoints/checkpoint-{step}",
            files=[file | {"path": "adapter.bin"}],
            metrics={},
            best_step=best,
        )
    )


def finish(worker, to=JobStatus.SUCCEEDED):
    values = {}
    if to == JobStatus.FAILED:
        values = {"failure_reason": FailureReason.CRASHED, "failure_detail": "it fell"}
    with worker.context.database.write() as session:
        job = jobs.get(session, worker.job_id)
        assert jobs.switch_status(session, job, to, expected_token=worker.current.token, **values)


@pytest.fixture
def trained(worker, run_id) -> str:
    """A run that has succeeded, with a checkpoint of 6 bytes and an adapter of 7."""
    save(worker, 6)
    worker.ship(worker.line(type="metrics", step=6, epoch=1, values={"loss": 1.0}))
    worker.ship(worker.line(type="artifact", file=worker.file("adapter_config.json", b"adapter")))
    finish(worker)
    return run_id


def keys(context, prefix="runs") -> list[str]:
    return sorted(one.key for one in context.store.entries(prefix))


def count(context, model) -> int:
    with context.database.read() as session:
        return len(list(session.exec(select(model))))


def promote(context, run_id, *, superseded=False):
    with context.database.write() as session:
        session.add(
            Promotion(id="pro_1", project_id="default", name="n", stage="production", run_id=run_id)
        )
        session.flush()
        if superseded:
            session.execute(text("UPDATE promotion SET superseded_at = created_at"))


# -- deleting --------------------------------------------------------------------------------------


def test_a_deleted_run_leaves_nothing_but_its_dataset(client, context, trained, dataset_id):
    promote(context, trained, superseded=True)
    other = client.post("/v1/runs", json={"dataset_id": dataset_id}).json()["id"]
    save(Worker(context, other), 3)
    answer = client.delete(f"/v1/runs/{trained}")
    assert (answer.status_code, answer.content) == (204, b"")
    for what in ("", "/checkpoints", "/artifacts", "/events", "/metrics", "/adapter/download"):
        assert client.get(f"/v1/runs/{trained}{what}").status_code == 404
    assert client.delete(f"/v1/runs/{trained}").status_code == 404
    assert [one["id"] for one in client.get("/v1/runs").json()["data"]] == [other]
    assert client.get(f"/v1/datasets/{dataset_id}/preview").status_code == 200
    assert [key.split("/")[1] for key in keys(context)] == [other]
    with context.database.read() as session:
        assert {row.run_id for row in session.exec(select(Job))} == {other}
        assert {row.run_id for row in session.exec(select(Event))} == {other}
    assert count(context, Promotion) == 0


def test_the_key_that_made_a_deleted_run_makes_another(client, dataset_id):
    body, headers = {"dataset_id": dataset_id}, {"Idempotency-Key": "k"}
    first = client.post("/v1/runs", json=body, headers=headers).json()["id"]
    assert client.delete(f"/v1/runs/{first}").status_code == 204
    again = client.post("/v1/runs", json=body, headers=headers)
    assert (again.status_code, again.json()["id"] != first) == (201, True)


def test_a_running_run_is_not_deleted(client, context, run_id, worker):
    save(worker, 6)
    answer = client.delete(f"/v1/runs/{run_id}")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:fairtune:conflict")
    assert "cancel it" in answer.json()["detail"]
    assert client.get(f"/v1/runs/{run_id}/checkpoints").json()["data"][0]["step"] == 6
    assert len(keys(context)) == 1


@pytest.mark.parametrize("status", ["queued", "paused"])
def test_one_that_waits_is_cancelled_first(client, context, run_id, status):
    if status == "paused":
        client.post(f"/v1/runs/{run_id}/pause")
    assert client.delete(f"/v1/runs/{run_id}").status_code == 204
    assert count(context, Job) == 0


def test_a_run_that_is_served_is_not_deleted(client, context, trained):
    promote(context, trained)
    answer = client.delete(f"/v1/runs/{trained}")
    assert (answer.status_code, "n@production" in answer.json()["detail"]) == (409, True)
    assert client.get(f"/v1/runs/{trained}").status_code == 200


def test_a_running_evaluation_keeps_its_run(client, context, run_id, worker):
    save(worker, 6)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        worker.ship(worker.line(type="artifact", file=worker.file(name, b"x")))
    finish(worker)
    made = client.post(f"/v1/runs/{run_id}/evaluations", json={"target": "base"})
    assert made.status_code == 201, made.text
    evaluation = made.json()["id"]
    with context.database.read() as session:
        (job_id,) = session.exec(select(Job.id).where(Job.kind == "evaluate"))
    scoring = Worker(context, run_id, job_id)
    answer = client.delete(f"/v1/runs/{run_id}")
    assert (answer.status_code, job_id in answer.json()["detail"]) == (409, True)
    finish(scoring)
    assert client.delete(f"/v1/runs/{run_id}").status_code == 204
    assert client.get(f"/v1/runs/{run_id}/evaluations/{evaluation}").status_code == 404


@pytest.mark.parametrize("where", ["before the files", "half of the files", "before the rows"])
def test_a_deletion_that_was_cut_short_hides_the_run_and_is_done_by_the_next(
    client, context, trained, monkeypatch, where
):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    def half(prefix):
        context.store.remove([next(iter(context.store.entries(prefix)))])
        raise Killed

    with monkeypatch.context() as patch:
        if where == "before the rows":
            patch.setattr("service.store.retention.finish_delete", killed)
        else:
            patch.setattr(
                context.store, "remove_tree", killed if where == "before the files" else half
            )
        with pytest.raises(Killed):
            retention.delete_run(context.database, context.store, trained)
    assert client.get(f"/v1/runs/{trained}").status_code == 404
    assert client.post(f"/v1/runs/{trained}/retry").status_code == 404
    assert client.get("/v1/runs").json()["data"] == []
    if where == "half of the files":  # by the client, or by the collector
        found = retention.look(context.database, context.store, OLD)
        assert (found.half_deleted, found.unknown, found.lost) == ([trained], [], [])
        retention.collect(context.database, context.store, found)
    else:
        assert client.delete(f"/v1/runs/{trained}").status_code == 204
    assert client.delete(f"/v1/runs/{trained}").status_code == 404
    assert (count(context, Run), keys(context)) == (0, [])


def test_a_store_that_cannot_be_written_keeps_the_rows(client, context, trained, monkeypatch):
    def broken(_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(context.store, "remove_tree", broken)
        answer = client.delete(f"/v1/runs/{trained}")
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairtune:unavailable")
    assert count(context, Run) == 1
    assert client.delete(f"/v1/runs/{trained}").status_code == 204


# -- quota and age ---------------------------------------------------------------------------------


def test_past_the_quota_new_runs_are_refused_with_what_to_do(
    client, context, trained, dataset_id, monkeypatch
):
    with context.database.read() as session:
        used = rows.used_bytes(session)
    dataset = context.store.stat(keys(context, "datasets")[0]).size
    assert used == dataset + 6 + 7
    body, headers = {"dataset_id": dataset_id}, {"Idempotency-Key": "k"}
    first = client.post("/v1/runs", json=body, headers=headers)
    assert first.status_code == 201
    limited = context.settings.model_copy(update={"store_quota_bytes": used})
    object.__setattr__(context, "settings", limited)
    for url, asked in (("/v1/runs", body), (f"/v1/runs/{trained}/clone", {})):
        answer = client.post(url, json=asked)
        problem = answer.json()
        assert (answer.status_code, problem["type"]) == (507, "urn:fairtune:quota-exceeded")
        assert answer.headers["content-type"] == "application/problem+json"
        assert "FAIRTUNE_STORE_QUOTA_BYTES" in problem["detail"]
        assert str(used) in problem["detail"]
    # What was made before is still the answer, and more room lets new ones in.
    assert client.post("/v1/runs", json=body, headers=headers).status_code == 200
    assert client.delete(f"/v1/runs/{trained}").status_code == 204
    assert client.post("/v1/runs", json=body).status_code == 201


def age(context, days):
    """As if every checkpoint had been made so long ago."""
    with context.database.write() as session:
        session.execute(Checkpoint.__table__.update().values(created_at=db_now(-days * 86400)))


def sweeper(context, days) -> Sweeper:
    settings = context.settings.model_copy(update={"checkpoint_days": days})
    return Sweeper(settings, context.database, context.store, context.celery)


def steps(client, run_id) -> list[int]:
    return [one["step"] for one in client.get(f"/v1/runs/{run_id}/checkpoints").json()["data"]]


def test_old_checkpoints_of_ended_runs_expire_with_an_event(client, context, trained):
    sweeper(context, 1).sweep()
    assert steps(client, trained) == [6]
    age(context, 2)
    sweeper(context, 0).sweep()
    assert steps(client, trained) == [6]
    sweeper(context, 1).sweep()
    assert steps(client, trained) == []
    assert [key.rpartition("/")[2] for key in keys(context)] == ["adapter_config.json"]
    event = client.get(f"/v1/runs/{trained}/events").json()["data"][-1]
    assert event["type"] == "log"
    assert event["data"]["message"].endswith("of steps 6")


def test_what_a_run_may_go_on_from_does_not_expire(client, context, run_id, worker):
    save(worker, 3, best=3)
    save(worker, 6, best=3)
    age(context, 9)
    sweeper(context, 1).sweep()
    assert steps(client, run_id) == [3, 6]  # it is running
    finish(worker, JobStatus.FAILED)
    sweeper(context, 1).sweep()
    assert steps(client, run_id) == [6]


# -- garbage ---------------------------------------------------------------------------------------


def look(context, older_than=OLD):
    return retention.look(context.database, context.store, older_than)


def put(context, key, tmp_path, content=b"garbage"):
    source = tmp_path / "source"
    source.write_bytes(content)
    context.store.put_file(source, key)


def test_where_all_is_well_there_is_nothing_to_remove(context, trained):
    assert not look(context)


def test_files_that_no_row_names_are_found_and_removed(context, trained, tmp_path):
    before = keys(context, "runs") + keys(context, "datasets")
    garbage = ["datasets/0000.parquet", "runs/run_gone/job_1/1/a", f"runs/{trained}/job_1/9/a"]
    for key in garbage:
        put(context, key, tmp_path)
    put(context, "others/file", tmp_path)  # not ours to judge
    half = context.store.root / "runs" / f".a.{'0' * 32}.part"
    half.write_bytes(b"half")
    assert not look(context, older_than=3600)  # their rows may be on their way
    found = look(context)
    assert sorted(one.key for one in found.unknown) == sorted([*garbage, f"runs/{half.name}"])
    assert (found.lost, found.half_deleted) == ([], [])
    retention.collect(context.database, context.store, found)
    assert keys(context, "runs") + keys(context, "datasets") == before
    assert keys(context, "others") == ["others/file"]
    assert not look(context)


def test_a_file_that_got_its_row_meanwhile_stays(context, run_id, worker):
    entry = worker.file("adapter_config.json", b"{}")
    finish(worker)
    found = look(context)
    assert len(found.unknown) == 1
    with context.database.write() as session:
        job = jobs.get(session, worker.job_id)
        session.execute(text("UPDATE job SET status = 'running'"))
        session.refresh(job)
    worker.ship(worker.line(type="artifact", file=entry))
    retention.collect(context.database, context.store, found)
    assert len(keys(context)) == 1


def test_what_a_running_job_stores_is_its_own(context, run_id, worker):
    worker.file("checkpoints/checkpoint-3/adapter.bin", b"x")
    assert not look(context)
    finish(worker)
    assert len(look(context).unknown) == 1


def test_rows_whose_files_are_gone_are_found_and_removed_but_a_datasets(client, context, trained):
    (blob,) = keys(context, "datasets")
    for key in [key for key in keys(context) if "adapter.bin" in key] + [blob]:
        (context.store.root / key).unlink()
    found = look(context)
    assert (found.unknown, found.half_deleted) == ([], [])
    assert sorted(one.label.split()[0] for one in found.lost) == ["checkpoint", "dataset"]
    retention.collect(context.database, context.store, found)
    assert steps(client, trained) == []
    assert len(client.get(f"/v1/runs/{trained}/artifacts").json()["data"]) == 1
    assert [one.label.split()[0] for one in look(context).lost] == ["dataset"]


def test_a_wrong_store_is_not_taken_for_an_empty_one(context, trained):
    for key in keys(context, "runs") + keys(context, "datasets"):
        (context.store.root / key).unlink()
    with pytest.raises(Conflict, match="FAIRTUNE_ARTIFACTS_URL"):
        look(context)


def test_the_command_reports_before_it_removes(context, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in context.settings.variables.items():
        monkeypatch.setenv(name, value)
    put(context, "runs/run_gone/job_1/1/a", tmp_path)

    def gc(*arguments):
        answer = CliRunner().invoke(app, ["gc", *arguments])
        assert answer.exit_code == 0, answer.output
        return answer.output

    assert gc() == "There is nothing to remove.\n"  # it is too young
    os.utime(context.store.root / "runs/run_gone/job_1/1/a", (0, 0))
    said = gc("--dry-run")
    listed = next(line for line in said.splitlines() if line.startswith("file without a row"))
    assert listed.split()[4:] == ["runs/run_gone/job_1/1/a", "7", "1970-01-01T00:00:00Z"]
    assert said.endswith("Nothing was removed.\n")
    assert "runs/run_gone/job_1/1/a" in keys(context)
    said = gc("--older-than", "1h")
    assert "runs/run_gone/job_1/1/a" in said
    assert "Removed" in said
    assert "runs/run_gone/job_1/1/a" not in keys(context)
    assert gc() == "There is nothing to remove.\n"
    assert CliRunner().invoke(app, ["gc", "--older-than", "soon"]).exit_code == 2
