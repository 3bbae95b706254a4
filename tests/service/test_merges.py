"""Merged models as jobs of their own: requests, attempts, results."""

import hashlib
import io
import tarfile
import textwrap
import threading

import pytest

from service.domain.states import FailureReason, JobStatus
from service.queue import celery_app
from service.queue.sweep import Sweeper
from service.store import jobs, program_events
from service.store.jobs import Fenced
from service.store.runs import artifacts
from service.usecases.export import export
from service.usecases.retention import collect, look
from tests.support.attempts import House, in_background
from tests.support.fake_worker import Worker
from tests.support.installation import wait_until
from tests.support.merged_runs import COMPARED, MODEL, ask, merged, publish, url_of
from tests.support.trained_runs import finish, leave_adapter, save


@pytest.fixture
def trained(client, run_id, worker) -> str:
    """A run that has succeeded, with checkpoints at 2 and 4, the best at 2, and an adapter."""
    save(worker, 2, best_step=2)
    save(worker, 4, best_step=2)
    worker.ship(worker.line(type="artifact", file=worker.file("training.log", b"trained\n")))
    leave_adapter(worker)
    finish(worker)
    return run_id


# -- asking ----------------------------------------------------------------------------------------


def test_what_is_left_out_has_its_value(client, trained):
    run = client.get(f"/v1/runs/{trained}").json()
    answer = client.post(url_of(trained))
    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"{url_of(trained)}?merge_id={made['id']}"
    assert made["id"] == made["job_id"].replace("job_", "merge_")
    told = ("target", "step", "dtype", "base_weights", "max_shard_bytes", "status", "files")
    assert [made[name] for name in told] == [
        "adapter",
        2,  # the best checkpoint's weights are the adapter's
        "bfloat16",
        "original",
        5 * 10**9,
        "queued",
        [],
    ]
    nothing = ("comparison", "size", "failure", "requested", "eta_seconds", "started_at")
    assert {made[name] for name in nothing} == {None}
    assert (made["queue_position"], made["percent"], made["superseded"]) == (1, 0.0, False)
    assert client.get(answer.headers["Location"]).json() == made
    assert client.get(url_of(trained)).json() == made
    assert client.get(f"/v1/runs/{trained}").json() == run


def test_a_message_is_sent_for_it_once(context, client, trained):
    messages = celery_app.folder_of(context.settings) / "messages"
    before = len(list(messages.glob("*.msg")))
    ask(client, trained)
    ask(client, trained, 200)
    assert len(list(messages.glob("*.msg"))) == before + 1


def test_without_weights_there_is_nothing_to_merge(context, client, run_id):
    for body in ({}, {"checkpoint": 2}):
        refused = client.post(url_of(run_id), json=body)
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:fairtune:conflict")
        assert "is queued and has no" in refused.json()["detail"]
    assert client.get(url_of(run_id)).status_code == 404
    worker = Worker(context, run_id)
    save(worker, 2)
    made = ask(client, run_id, checkpoint=2)
    assert (made["target"], made["step"]) == ("checkpoint", 2)
    assert client.post(url_of(run_id), json={}).status_code == 409
    leave_adapter(worker)
    assert ask(client, run_id)["target"] == "adapter"


@pytest.mark.parametrize(
    ("body", "pointer", "remedy"),
    [
        ({"step": 2}, "/step", "unknown field"),
        ({"checkpoint": 3}, "/checkpoint", "the run has checkpoints of steps 2, 4"),
        ({"checkpoint": "2"}, "/checkpoint", "must be a whole number"),
        ({"checkpoint": -1}, "/checkpoint", "must be at least 0"),
        ({"dtype": "int8"}, "/dtype", "'bfloat16', 'float16' or 'float32'"),
        ({"max_shard_size": "big"}, "/max_shard_size", "such as 500MB"),
        ({"max_shard_size": "1KB"}, "/max_shard_size", "from 1MB"),
        ({"max_shard_size": 5}, "/max_shard_size", "must be a string"),
        ({"base_weights": "nf4"}, "/base_weights", "'original' or 'dequantized'"),
    ],
)
def test_what_is_wrong_is_named_with_a_remedy(client, trained, body, pointer, remedy):
    answer = client.post(url_of(trained), json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert remedy in answer.json()["errors"][0]["detail"]
    assert client.get(url_of(trained)).status_code == 404


def test_a_run_without_4_bits_saw_the_original_weights(context, client, dataset_id):
    body = {
        "dataset_id": dataset_id,
        "preset": "quick_test",
        "base_model": "tiny",
        "quantization": {"load_in_4bit": False},
    }
    run_id = client.post("/v1/runs", json=body).json()["id"]
    leave_adapter(Worker(context, run_id))
    refused = client.post(url_of(run_id), json={"base_weights": "dequantized"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/base_weights"
    assert "load_in_4bit" in refused.json()["detail"]


# -- the same parameters, the same job -------------------------------------------------------------


def test_the_same_parameters_are_the_same_merge(context, client, trained):
    first = ask(client, trained)
    assert ask(client, trained, 200) == first
    assert ask(client, trained, 200, max_shard_size="5000MB")["id"] == first["id"]
    others = [
        ask(client, trained, **body)["id"]
        for body in (
            {"dtype": "float16"},
            {"max_shard_size": "1GB"},
            {"base_weights": "dequantized"},
            {"checkpoint": 2},
            {"checkpoint": 4},
        )
    ]
    assert len({first["id"], *others}) == 6
    worker = Worker(context, trained, first["job_id"])
    assert ask(client, trained, 200)["id"] == first["id"]
    worker.ship(merged(worker))
    finish(worker)
    done = ask(client, trained, 200)
    assert (done["id"], done["status"]) == (first["id"], "succeeded")


@pytest.mark.parametrize("end", [JobStatus.FAILED, JobStatus.CANCELLED])
def test_one_that_came_to_nothing_is_made_anew(context, client, trained, end):
    first = ask(client, trained)
    why = {"failure_reason": "crashed", "failure_detail": "it fell"}
    finish(Worker(context, trained, first["job_id"]), end, **(why if end == "failed" else {}))
    assert ask(client, trained)["id"] != first["id"]


def test_two_who_ask_at_once_get_the_same(client, trained):
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.post(url_of(trained), json={})))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.status_code for one in answers) == [200, 200, 200, 201]
    assert len({one.json()["id"] for one in answers}) == 1


def test_the_same_key_asks_once(client, trained):
    key = {"Idempotency-Key": "k"}
    first, again = (client.post(url_of(trained), json={}, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    other = client.post(url_of(trained), json={"dtype": "float16"}, headers=key)
    assert other.status_code == 422


# -- by the hands of a worker ----------------------------------------------------------------------


def test_it_is_made_by_a_worker_and_nothing_of_the_runs_changes(context, client, trained):
    before = client.get(f"/v1/runs/{trained}").json()
    kept = {
        what: client.get(f"/v1/runs/{trained}/{what}").text
        for what in ("metrics", "checkpoints", "artifacts", "logs", "evaluations")
    }
    made = ask(client, trained)
    worker = Worker(context, trained, made["job_id"])
    waiting = client.get(f"{url_of(trained)}/download")
    assert (waiting.status_code, waiting.json()["type"]) == (409, "urn:fairtune:conflict")
    assert "is running" in waiting.json()["detail"]
    worker.ship(
        worker.line(type="phase", phase="merging"),
        worker.line(type="progress", step=10, total_steps=40, epoch=0, eta_seconds=9),
    )
    now = client.get(url_of(trained)).json()
    assert (now["status"], now["phase"], now["percent"]) == ("running", "merging", 25.0)
    assert now["eta_seconds"] == 9
    line = merged(worker)
    for what, text in kept.items():
        assert client.get(f"/v1/runs/{trained}/{what}").text == text
    worker.ship(line)
    assert client.get(url_of(trained)).json()["files"] == []  # not before it has succeeded
    assert client.get(f"{url_of(trained)}/download").status_code == 409
    finish(worker)
    now = client.get(url_of(trained)).json()
    assert (now["status"], now["comparison"]) == ("succeeded", COMPARED)
    assert (now["percent"], now["eta_seconds"]) == (100.0, None)
    assert {one["path"]: one["size"] for one in now["files"]} == {
        name: len(content) for name, content in MODEL.items()
    }
    assert now["size"] == sum(map(len, MODEL.values()))
    for name, content in MODEL.items():
        path = f"/v1/runs/{trained}/artifacts/merged/{made['id']}/{name}"
        got = client.get(path, headers={"Range": "bytes=1-2"})
        assert (got.status_code, got.content) == (206, content[1:3])
    assert client.get(f"/v1/runs/{trained}").json() == before
    for what in ("metrics", "checkpoints", "logs", "evaluations"):
        assert client.get(f"/v1/runs/{trained}/{what}").text == kept[what]
    events = client.get(f"/v1/runs/{trained}/events", params={"limit": 1000}).json()["data"]
    ours = [event for event in events if event["job_id"] == made["job_id"]]
    assert {event["data"]["merge_id"] for event in ours} == {made["id"]}
    assert [event["type"] for event in ours] == ["status", "status", "phase", "merged", "status"]
    assert ours[3]["data"]["comparison"] == COMPARED
    assert "path" not in ours[3]["data"]


def test_the_tar_is_the_model(context, client, trained):
    merge = publish(context, client, trained)
    where = f"{url_of(trained)}/download"
    got = client.get(where)
    assert got.status_code == 200
    assert got.headers["content-type"] == "application/x-tar"
    assert f'filename="{merge}.tar"' in got.headers["content-disposition"]
    assert int(got.headers["content-length"]) == len(got.content)
    with tarfile.open(fileobj=io.BytesIO(got.content), mode="r:") as archive:
        found = {one.name: archive.extractfile(one).read() for one in archive}
    assert found == {f"{merge}/{name}": content for name, content in MODEL.items()}
    assert client.get(where).content == got.content
    head = client.head(where)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "content-type"):
        assert head.headers[name] == got.headers[name]
    known = client.get(where, headers={"If-None-Match": got.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")


def test_an_earlier_merge_can_be_named(context, client, trained):
    first = publish(context, client, trained)
    second = ask(client, trained, dtype="float16")
    where = url_of(trained)
    assert client.get(where).json()["id"] == second["id"]
    assert client.get(where, params={"merge_id": first}).json()["status"] == "succeeded"
    refused = client.get(f"{where}/download")
    assert refused.status_code == 409
    assert f"merge_id={first}" in refused.json()["detail"]
    assert client.get(f"{where}/download", params={"merge_id": first}).status_code == 200


def test_what_is_not_there_is_404(context, client, trained, dataset_id):
    other = client.post("/v1/runs", json={"dataset_id": dataset_id}).json()["id"]
    merge = publish(context, client, trained)
    train = client.get(f"/v1/runs/{trained}/events").json()["data"][0]["job_id"]
    assert client.post(url_of("run_none"), json={}).status_code == 404
    for run_id, named in (
        (trained, "merge_none"),
        (other, merge),
        (trained, train.replace("job_", "merge_")),
    ):
        for what in ("", "/download", "/logs"):
            got = client.get(url_of(run_id) + what, params={"merge_id": named})
            assert got.status_code == 404
        cancel = client.post(f"{url_of(run_id)}/cancel", params={"merge_id": named})
        assert cancel.status_code == 404
    assert client.get(f"{url_of(other)}/download").status_code == 404


@pytest.mark.parametrize(
    "line",
    [
        {"type": "metrics", "step": 1, "epoch": 0, "values": {"loss": 1.0}},
        {"type": "rewound", "step": 0},
        {"type": "artifact", "file": {"path": "README.md", "size": 1, "sha256": "0"}},
    ],
    ids=lambda line: line["type"],
)
def test_what_is_the_runs_own_a_merge_cannot_say(context, client, trained, line):
    worker = Worker(context, trained, ask(client, trained)["job_id"])
    with pytest.raises(RuntimeError, match="of kind merge may not emit"):
        worker.ship(worker.line(**line))


def test_cancelling(context, client, trained):
    waiting, running = ask(client, trained), ask(client, trained, dtype="float16")
    before = client.get(f"/v1/runs/{trained}").json()

    def cancel(one):
        return client.post(f"{url_of(trained)}/cancel", params={"merge_id": one["id"]})

    assert cancel(waiting).json()["status"] == "cancelled"
    worker = Worker(context, trained, running["job_id"])
    asked = client.post(f"{url_of(trained)}/cancel").json()  # the newest
    assert (asked["id"], asked["status"], asked["requested"]) == (
        running["id"],
        "running",
        "cancel",
    )
    with context.database.write() as session:
        job = jobs.lock_for_worker(session, worker.current)
        told = FailureReason.WORKER_LOST
        jobs.return_to_queue(session, job, worker.current.token, told, "", free=True)
    assert client.get(url_of(trained)).json()["status"] == "cancelled"
    publish(context, client, trained)
    refused = client.post(f"{url_of(trained)}/cancel")
    assert refused.status_code == 409
    assert "the merge has already succeeded" in refused.json()["detail"]
    assert client.get(f"/v1/runs/{trained}").json() == before


# -- killed at any point: all of it or nothing -----------------------------------------------------


def lose(worker):
    """Its worker is gone, and the sweep notices."""
    context = worker.context
    with context.database.write() as session:
        jobs.renew(session, worker.current, -1)
    sweeper = Sweeper(context.settings, context.database, context.store, context.celery)
    sweeper._renewal_seconds = 0
    sweeper.sweep()


def stored(context):
    """Keys of all files of runs but the logs of merges, which stay."""
    root = context.store.root
    found = {p.relative_to(root).as_posix() for p in (root / "runs").rglob("*") if p.is_file()}
    return {key for key in found if not key.endswith("/merge.log")}


def shown(client, run_id):
    data = client.get(f"/v1/runs/{run_id}/artifacts").json()["data"]
    return {one["path"] for one in data if one["path"].startswith("merged/")}


def test_a_worker_lost_amid_its_uploads_leaves_nothing(context, client, trained):
    kept = stored(context)
    made = ask(client, trained)
    lost = Worker(context, trained, made["job_id"])
    line = merged(lost)  # in the store, and not recorded
    assert len(stored(context)) == len(kept) + len(MODEL)
    lose(lost)
    assert stored(context) == kept
    assert shown(client, trained) == set()
    assert client.get(url_of(trained)).json()["status"] == "queued"
    with pytest.raises(Fenced):
        lost.ship(line, claim=lost.current)
    second = Worker(context, trained, made["job_id"])
    second.ship(merged(second))
    finish(second)
    assert len(shown(client, trained)) == len(MODEL)
    assert client.get(f"{url_of(trained)}/download").status_code == 200


def test_a_worker_lost_after_them_is_followed_by_one_whose_files_replace_its_own(
    context, client, trained
):
    made = ask(client, trained)
    lost = Worker(context, trained, made["job_id"])
    lost.ship(merged(lost, MODEL | {"model-00003-of-00003.safetensors": b"more"}))
    lose(lost)
    assert client.get(url_of(trained)).json()["files"] == []
    assert client.get(f"{url_of(trained)}/download").status_code == 409
    second = Worker(context, trained, made["job_id"])
    second.ship(merged(second))
    finish(second)
    assert {path.rpartition("/")[2] for path in shown(client, trained)} == set(MODEL)


MERGE = """
    say("phase", phase="merging")
    place = directory / "merged"
    place.mkdir()
    files = []
    for name, content in {"config.json": b"{}", "model.safetensors": b"weights"}.items():
        (place / name).write_bytes(content)
        files.append({"path": name, "size": len(content),
                      "sha256": hashlib.sha256(content).hexdigest()})
"""
ANNOUNCE = """
    say("merged", path="merged", files=files, comparison={
        "rows": 8, "split": "validation", "labels_changed": 0,
        "max_difference": 0.0, "mean_difference": 0.0})
"""
SAID = """
    say("progress", step=1, total_steps=9, epoch=0)
"""
KILL = """
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def house(context, trained, tmp_path, monkeypatch):
    """Asks for a merge and gives it to a supervisor whose program is the test's."""

    def make(client, **body) -> House:
        made = ask(client, trained, **body)
        return House(context, trained, tmp_path, monkeypatch, made["job_id"])

    return make


def test_a_program_gets_all_that_it_needs(client, house):
    working = house(client, checkpoint=4, dtype="float16", max_shard_size="2MB")
    working.play(
        """
        import pyarrow.parquet
        assert job["task"] == {
            "target": "checkpoint",
            "step": 4,
            "dtype": "float16",
            "max_shard_bytes": 2_000_000,
            "base_weights": "original",
            "labels": ["hate", "normal"],
            "split": "validation",
            "merge": None,
            "dataset_id": None,
            "template": None,
        }
        assert job["template"]["name"] == "hate_speech_simple"
        assert job["kind"] == "merge"
        assert job["merged"] is job["resume_from"] is None
        names = sorted(path.name for path in (directory / job["adapter"]).iterdir())
        assert names == ["adapter_config.json", "adapter_model.safetensors"]
        for name in names:
            assert (directory / "adapter" / name).read_text() == f"{name} 4"
        assert pyarrow.parquet.read_table(directory / "dataset.parquet").num_rows
        """
        + textwrap.indent(MERGE + ANNOUNCE, "    ")
    )
    assert working.job.status == "succeeded", working.job.failure_detail


@pytest.mark.parametrize(
    "program",
    [KILL, MERGE + KILL, MERGE + SAID + KILL],
    ids=["at the start", "files written", "progress said"],
)
def test_a_program_killed_before_it_announces_leaves_nothing(
    context, client, trained, house, program
):
    kept = stored(context)
    working = house(client)
    working.play(textwrap.dedent(program))
    assert (working.job.status, working.job.attempts) == ("queued", 1)
    assert shown(client, trained) == set()
    assert client.get(url_of(trained)).json()["files"] == []
    assert stored(context) == kept
    working.play(textwrap.dedent(MERGE + ANNOUNCE))
    assert working.job.status == "succeeded"
    assert len(shown(client, trained)) == 2


def test_a_program_killed_right_after_it_announced_has_said_all(context, client, trained, house):
    working = house(client)
    working.play(textwrap.dedent(MERGE + ANNOUNCE + KILL))
    assert working.job.status == "queued"
    assert client.get(url_of(trained)).json()["files"] == []
    working.play(textwrap.dedent(MERGE + ANNOUNCE))
    assert working.job.status == "succeeded"
    assert client.get(url_of(trained)).json()["comparison"]["rows"] == 8
    with context.database.read() as session:
        named = program_events.keys_of(session, trained)
    assert stored(context) == {key for key in named if not key.endswith("/merge.log")}


def test_a_store_that_fails_amid_the_uploads_shows_nothing(
    context, client, trained, house, monkeypatch
):
    working = house(client)
    put, kept = context.store.put_file, stored(context)

    def failing(source, key, *rest, **named):
        if key.endswith("model.safetensors"):
            raise OSError(28, "No space left on device")
        return put(source, key, *rest, **named)

    monkeypatch.setattr(context.store, "put_file", failing)
    working.play(textwrap.dedent(MERGE + ANNOUNCE), storage_patience_seconds=0.3)
    assert working.job.status == "queued"
    assert shown(client, trained) == set()
    assert stored(context) == kept


def test_a_cancel_stops_the_program(client, trained, house):
    working = house(client)
    attempt = in_background(
        working.attempt(
            """
            signal.signal(signal.SIGTERM, lambda *_: os._exit(4))
            say("phase", phase="merging")
            say("progress", step=1, total_steps=9, epoch=0)
            while True: signal.pause()
            """
        )
    )
    wait_until(lambda: working.job.step == 1)
    client.post(f"{url_of(trained)}/cancel")
    attempt.join(timeout=20)
    assert working.job.status == "cancelled"


def test_its_log_is_its_own(client, trained, house):
    working = house(client)
    assert client.get(f"{url_of(trained)}/logs").text == ""
    working.play('log("merging now")\n' + textwrap.dedent(MERGE + ANNOUNCE))
    assert client.get(f"{url_of(trained)}/logs").text == "merging now\n"
    assert client.get(f"/v1/runs/{trained}/logs").text == "trained\n"


def test_a_failure_says_what_to_do(client, trained, house):
    working = house(client)
    working.play('fail("model_unavailable")')
    failed = client.get(url_of(trained)).json()
    assert (failed["status"], failed["failure"]["reason"]) == ("failed", "model_unavailable")
    assert "request the merge again" in failed["failure"]["advice"]
    assert client.get(f"/v1/runs/{trained}").json()["status"] == "succeeded"


# -- weights that the run no longer has ------------------------------------------------------------


def test_going_back_takes_merges_of_later_weights_back(context, client, run_id, worker):
    for step in (2, 4):
        save(worker, step, best_step=2)
    leave_adapter(worker)
    done = {step: publish(context, client, run_id, checkpoint=step) for step in (2, 4)}
    evaluated = {}
    for step in (2, 4):  # of the newest merge each
        asked = client.post(f"/v1/runs/{run_id}/evaluations", json={"target": "merged"}).json()
        evaluated[step] = asked
        assert asked["step"] == 4
    waiting = ask(client, run_id)
    places = {one.prefix for one in worker.ship(worker.line(type="rewound", step=2))}
    assert any(place.endswith("/merged") for place in places)

    def now(merge):
        return client.get(url_of(run_id), params={"merge_id": merge}).json()

    assert (now(done[2])["superseded"], now(done[4])["superseded"]) == (False, True)
    assert now(done[4])["files"] == []
    assert now(waiting["id"])["status"] == "cancelled"
    refused = client.get(f"{url_of(run_id)}/download", params={"merge_id": done[4]})
    assert refused.status_code == 409
    assert "past which the run was rewound" in refused.json()["detail"]
    for one in evaluated.values():
        found = client.get(f"/v1/runs/{run_id}/evaluations/{one['id']}").json()
        assert found["status"] == "cancelled"
    assert ask(client, run_id, 200, checkpoint=2)["id"] == done[2]


def test_an_adapter_of_a_second_training_is_merged_anew(context, client, run_id, worker):
    leave_adapter(worker)
    first = publish(context, client, run_id)
    worker.ship(worker.line(type="rewound", step=0))
    leave_adapter(worker, b"others")
    assert ask(client, run_id)["id"] != first


# -- evaluating what was merged --------------------------------------------------------------------


def test_the_newest_finished_merge_is_evaluated(context, client, trained, tmp_path, monkeypatch):
    where = f"/v1/runs/{trained}/evaluations"
    refused = client.post(where, json={"target": "merged"})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:fairtune:conflict")
    assert "POST" in refused.json()["detail"]
    waiting = ask(client, trained, dtype="float32")
    refused = client.post(where, json={"target": "merged"})
    assert refused.status_code == 409
    assert f"{waiting['id']} is queued" in refused.json()["detail"]
    merge = publish(context, client, trained, checkpoint=2)
    ask(client, trained, dtype="float16")  # newer, and not finished
    answer = client.post(where, json={"target": "merged"})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["target"], made["step"], made["merge_id"]) == ("merged", 2, merge)
    working = House(context, trained, tmp_path, monkeypatch, made["job_id"])
    working.play(
        f"""
        assert job["adapter"] is None
        place = directory / job["merged"]
        found = {{path.name: path.read_bytes() for path in place.iterdir()}}
        assert found == {MODEL!r}
        (directory / "evaluations").mkdir()
        (directory / "evaluations/merged-test.parquet").write_bytes(b"PAR1")
        file = {{"path": "evaluations/merged-test.parquet", "size": 4,
                "sha256": hashlib.sha256(b"PAR1").hexdigest()}}
        say("evaluation", target="merged", step=2, split="test",
            template=job["template"]["name"], metrics={{"f1": 1.0}}, predictions=file)
        """
    )
    found = client.get(f"{where}/{made['id']}").json()
    assert (found["status"], found["metrics"]) == ("succeeded", {"f1": 1.0}), working.job
    assert hashlib.sha256(client.get(f"{where}/{made['id']}/predictions").content).hexdigest()


def test_a_model_that_lost_a_file_is_gone_whole_and_made_anew(context, client, trained):
    publish(context, client, trained)
    made = client.get(url_of(trained)).json()
    with context.database.read() as session:
        rows = [one for one in artifacts(session, trained) if one.path.startswith("merged/")]
    (context.store.root / rows[0].key).unlink()
    garbage = look(context.database, context.store, 0)
    (lost,) = garbage.lost
    assert lost.label == f"merged/{made['id']} of {trained}"
    collect(context.database, context.store, garbage)
    assert not [path for path in shown(client, trained) if path.startswith("merged/")]
    assert client.get(f"{url_of(trained)}/download").status_code == 409
    assert ask(client, trained)["id"] != made["id"]


@pytest.mark.parametrize("end", [JobStatus.CANCELLED, JobStatus.FAILED])
def test_a_merge_that_ends_otherwise_after_it_was_shown_shows_nothing(
    context, client, trained, end
):
    made = ask(client, trained)
    worker = Worker(context, trained, made["job_id"])
    worker.ship(merged(worker))
    assert [path for path in shown(client, trained) if path.startswith("merged/")]
    failure = {"failure_reason": FailureReason.CRASHED, "failure_detail": "it did not work"}
    finish(worker, end, **(failure if end == JobStatus.FAILED else {}))
    assert not [path for path in shown(client, trained) if path.startswith("merged/")]


def test_an_export_leaves_merged_models_out(context, client, run_id, worker, tmp_path):
    worker.ship(worker.line(type="artifact", file=worker.file("README.md", b"# Card")))
    leave_adapter(worker)
    finish(worker)
    publish(context, client, run_id)
    paths = export(context.database, context.store, run_id, tmp_path / "hub")
    assert {"adapter_model.safetensors", "README.md"} <= set(paths)
    assert not [path for path in paths if path.startswith("merge")]


def test_past_the_quota_no_merge_is_begun(context, client, trained):
    publish(context, client, trained)
    object.__setattr__(context.settings, "store_quota_bytes", 1)
    assert client.post(url_of(trained), json={}).status_code == 200  # it is there already
    refused = client.post(url_of(trained), json={"dtype": "float32"})
    assert (refused.status_code, refused.json()["type"]) == (507, "urn:fairtune:quota-exceeded")
