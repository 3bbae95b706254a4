"""A merged model deleted alone: what keeps it, what goes with it, what stays."""

import threading

import pytest
from sqlmodel import select
from typer.testing import CliRunner

from service.cli.main import app
from service.store import jobs
from service.store import retention as rows
from service.store.rewind import rewind
from service.store.runs import get_run
from service.store.tables import Artifact
from service.usecases import retention
from tests.support.fake_worker import Worker
from tests.support.merged_runs import MODEL, ask, publish, url_of
from tests.support.trained_runs import finish, leave_adapter

pytestmark = pytest.mark.both_databases

OLD = -60  # a file is older than that as soon as it is there


@pytest.fixture
def trained(run_id, worker) -> str:
    leave_adapter(worker)
    finish(worker)
    return run_id


def delete(client, run_id, merge=None):
    """None: the newest that is shown."""
    if merge is None:
        merge = client.get(url_of(run_id)).json().get("id", "merge_none")
    return client.delete(url_of(run_id), params={"merge_id": merge})


def shown(client, run_id, merge):
    """Whether anything of the merge is to be seen."""
    files = client.get(f"/v1/runs/{run_id}/artifacts").json()["data"]
    there = [
        client.get(url_of(run_id) + what, params={"merge_id": merge}).status_code
        for what in ("", "/download", "/logs")
    ]
    there.append(client.get(f"/v1/runs/{run_id}/artifacts/merged/{merge}/config.json").status_code)
    assert len(set(there)) == 1
    assert any(merge in one["path"] for one in files) is (there[0] == 200)
    return there[0] == 200


def keys(context):
    return sorted(one.key for one in context.store.entries("runs"))


def test_the_one_named_goes_and_nothing_else(context, client, trained):
    before = keys(context)
    first, second = (
        publish(context, client, trained),
        publish(context, client, trained, dtype="float16"),
    )
    third = publish(context, client, trained, dtype="float32")
    kept = {
        what: client.get(f"/v1/runs/{trained}{what}").json()
        for what in ("", "/checkpoints", "/metrics", "/evaluations")
    }
    answer = delete(client, trained, first)
    assert (answer.status_code, answer.content) == (204, b"")
    assert delete(client, trained).status_code == 204
    assert [shown(client, trained, one) for one in (first, second, third)] == [False, True, False]
    assert client.get(url_of(trained)).json()["id"] == second
    for what, answer in kept.items():
        assert client.get(f"/v1/runs/{trained}{what}").json() == answer
    assert len(keys(context)) == len(before) + len(MODEL)
    assert delete(client, trained, first).status_code == 404
    assert delete(client, trained).status_code == 204
    assert keys(context) == before
    refused = delete(client, trained)
    assert refused.status_code == 404


def test_one_must_be_named(client, context, trained):
    """Of a request that is repeated the second would take another model."""
    merge = publish(context, client, trained)
    refused = client.delete(url_of(trained))
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/query/merge_id"
    assert shown(client, trained, merge)


def test_events_say_that_it_was_deleted_and_are_all_there(context, client, trained):
    merge = publish(context, client, trained)
    delete(client, trained, merge)
    data = client.get(f"/v1/runs/{trained}/events", params={"limit": 1000}).json()["data"]
    assert [one["id"] for one in data] == list(range(1, len(data) + 1))
    assert data[-1]["type"] == "log"
    assert data[-1]["data"] == {
        "message": f"the merged model {merge} is deleted",
        "merge_id": merge,
    }


def test_the_same_asked_for_again_is_made_anew(context, client, trained):
    key = {"Idempotency-Key": "k"}
    made = client.post(url_of(trained), json={}, headers=key).json()
    assert client.post(f"{url_of(trained)}/cancel").status_code == 200
    delete(client, trained)
    again = client.post(url_of(trained), json={}, headers=key)
    assert (again.status_code, again.json()["id"] != made["id"]) == (201, True)
    first = publish(context, client, trained, dtype="float16")
    assert ask(client, trained, 200, dtype="float16")["id"] == first
    delete(client, trained, first)
    assert ask(client, trained, dtype="float16")["id"] != first


def test_one_that_waits_or_runs_is_cancelled_first(context, client, trained):
    made = ask(client, trained)
    for _ in range(2):  # queued, then running
        refused = delete(client, trained)
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:fairtune:conflict")
        assert "cancel it" in refused.json()["detail"]
        with context.database.write() as session:
            jobs.claim(session, made["job_id"], "a worker", 60)
    assert client.get(url_of(trained)).json()["status"] == "running"


@pytest.mark.parametrize("what", ["evaluations", "predictions"])
def test_what_is_to_use_its_model_keeps_it(context, client, trained, what):
    other, merge = (
        publish(context, client, trained, dtype="float16"),
        publish(context, client, trained),
    )
    body = {"target": "merged"} | ({"texts": ["a"]} if what == "predictions" else {})
    made = client.post(f"/v1/runs/{trained}/{what}", json=body).json()
    assert made["merge_id"] == merge
    assert delete(client, trained, other).status_code == 204
    refused = delete(client, trained)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:fairtune:conflict")
    assert made["id"] in refused.json()["detail"]
    user = Worker(context, trained, made["job_id"])
    assert delete(client, trained).status_code == 409
    assert shown(client, trained, merge)
    finish(user)
    assert delete(client, trained).status_code == 204
    assert client.post(f"/v1/runs/{trained}/{what}", json=body).status_code == 409


def test_what_is_asked_for_amid_the_deletion_waits_and_finds_nothing(
    context, client, trained, monkeypatch
):
    publish(context, client, trained)
    look, answers = rows._users_of, []

    def late(session, merge):
        body = {"target": "merged"}
        where = f"/v1/runs/{trained}/evaluations"
        asking = threading.Thread(
            target=lambda: answers.append(client.post(where, json=body).status_code)
        )
        asking.start()
        asking.join(timeout=0.5)  # it is waiting: there is nothing to wait for
        late.asking = asking
        return look(session, merge)

    monkeypatch.setattr(rows, "_users_of", late)
    assert delete(client, trained).status_code == 204
    late.asking.join(timeout=30)
    assert answers == [409]


def test_evaluations_of_it_keep_their_figures_and_predictions(context, client, trained):
    merge = publish(context, client, trained)
    where = f"/v1/runs/{trained}/evaluations"
    made = client.post(where, json={"target": "merged"}).json()
    scorer = Worker(context, trained, made["job_id"])
    fields = {"target": "merged", "step": made["step"], "split": "test", "template": "t"}
    file = scorer.file("evaluations/merged-test.parquet", b"PAR1")
    line = scorer.line(type="evaluation", metrics={"f1": 1.0}, predictions=file, **fields)
    scorer.ship(line)
    finish(scorer)
    before = client.get(f"{where}/{made['id']}").json()
    assert delete(client, trained, merge).status_code == 204
    assert client.get(f"{where}/{made['id']}").json() == before
    assert (before["metrics"], before["merge_id"]) == ({"f1": 1.0}, merge)
    assert client.get(f"{where}/{made['id']}/predictions").content == b"PAR1"
    with context.database.write() as session:  # whose weights it scored is still known
        rewind(session, get_run(session, trained)[1], None)
    assert client.get(f"{where}/{made['id']}").json()["superseded"] is True


@pytest.mark.parametrize(
    ("where", "end"),
    [
        ("before the files", "by hand, named"),
        ("half of the files", "by the collector"),
        ("before the rows", "by hand, named"),
    ],
)
def test_a_deletion_that_was_cut_short_hides_it_and_is_done_by_the_next(
    context, client, trained, monkeypatch, where, end
):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    def half(prefix):
        context.store.remove([next(iter(context.store.entries(prefix)))])
        raise Killed

    before = keys(context)
    other, merge = (
        publish(context, client, trained, dtype="float16"),
        publish(context, client, trained),
    )
    with monkeypatch.context() as patch:
        if where == "before the rows":
            patch.setattr("service.store.retention.finish_delete_merge", killed)
        else:
            broken = killed if where == "before the files" else half
            patch.setattr(context.store, "remove_tree", broken)
        with pytest.raises(Killed):
            retention.delete_merge(context.database, context.store, trained, merge)
    assert not shown(client, trained, merge)
    assert client.get(url_of(trained)).json()["id"] == other
    assert ask(client, trained)["id"] != merge
    client.post(f"{url_of(trained)}/cancel")
    assert delete(client, trained).status_code == 204  # the newest: the one just cancelled
    if end == "by the collector":
        found = retention.look(context.database, context.store, OLD)
        assert [one.id for one in found.half_deleted_merges] == [merge.replace("merge_", "job_")]
        assert (found.half_deleted, found.unknown, found.lost) == ([], [], [])
        retention.collect(context.database, context.store, found)
    else:
        assert delete(client, trained, merge).status_code == 204
    assert shown(client, trained, other)
    assert not retention.look(context.database, context.store, OLD)
    assert len(keys(context)) == len(before) + len(MODEL)
    with context.database.read() as session:
        left = list(session.exec(select(Artifact).where(Artifact.run_id == trained)))
    assert len(left) == len(before) + len(MODEL)


def test_a_store_that_cannot_be_written_keeps_the_rows(context, client, trained, monkeypatch):
    merge = publish(context, client, trained)

    def broken(_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(context.store, "remove_tree", broken)
        answer = delete(client, trained)
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairtune:unavailable")
    monkeypatch.setenv("FAIRTUNE_DATA_DIR", str(context.settings.data_dir))
    monkeypatch.setenv("FAIRTUNE_DATABASE_URL", context.settings.database_url)
    told = CliRunner().invoke(app, ["gc", "--dry-run"]).stdout
    (listed,) = [line for line in told.splitlines() if f"{merge} of {trained}" in line]
    assert listed.startswith("merged model with an incomplete deletion")
    assert delete(client, trained, merge).status_code == 204
    assert delete(client, trained, merge).status_code == 404


def test_a_run_is_deleted_with_a_merge_whose_deletion_was_cut_short(
    context, client, trained, monkeypatch
):
    publish(context, client, trained)
    with monkeypatch.context() as patch:
        patch.setattr(context.store, "remove_tree", lambda _: (_ for _ in ()).throw(OSError(5, "")))
        assert delete(client, trained).status_code == 503
    assert client.delete(f"/v1/runs/{trained}").status_code == 204
    assert keys(context) == []


def test_what_is_not_there_is_404_and_a_body_is_refused(context, client, trained, dataset_id):
    other = client.post("/v1/runs", json={"dataset_id": dataset_id}).json()["id"]
    merge = publish(context, client, trained)
    assert delete(client, "run_none").status_code == 404
    assert delete(client, other).status_code == 404
    for named in ("merge_none", merge.replace("merge_", "job_")):
        assert delete(client, trained, named).status_code == 404
    assert delete(client, other, merge).status_code == 404
    refused = client.request("DELETE", url_of(trained), json={"merge_id": merge})
    assert refused.status_code == 422
    assert shown(client, trained, merge)
