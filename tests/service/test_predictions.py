"""Texts that a run's model is asked about: a job on a queue of its own."""

import json
import re

import pytest
from sqlalchemy import event, update
from sqlmodel import col
from typer.testing import CliRunner

from service.cli import predict
from service.cli.errors import ExitStatus
from service.cli.main import app
from service.domain.prediction import PredictionTask, Scores, apply_threshold
from service.queue import celery_app
from service.queue.sweep import Sweeper
from service.store import jobs, predictions
from service.store.database import db_now
from service.store.tables import Run
from tests.support.answering_client import connect_to, forwarding, labelling_server
from tests.support.attempts import House
from tests.support.fake_worker import Worker
from tests.support.trained_runs import finish, leave_adapter

SCORES = {"probabilities": [[0.6, 0.4], [0.2, 0.8]], "truncated": [False, True]}
TEXTS = ["one text", "another"]


def url_of(run_id):
    return f"/v1/runs/{run_id}/predictions"


@pytest.fixture
def trained(client, run_id, worker) -> str:
    leave_adapter(worker)
    finish(worker)
    return run_id


@pytest.fixture
def read(context):
    """Every SELECT so far."""
    found = []

    def note(_connection, _cursor, statement, *_):
        if statement.startswith("SELECT"):
            found.append(statement)

    event.listen(context.database.engine, "before_cursor_execute", note)
    yield found
    event.remove(context.database.engine, "before_cursor_execute", note)


def ask(client, run_id, status=201, **body):
    answer = client.post(url_of(run_id), json={"texts": TEXTS} | body)
    assert answer.status_code == status, answer.text
    return answer.json()


def scored(worker, scores=SCORES):
    file = worker.file("predictions.json", json.dumps(scores).encode())
    return worker.line(type="predictions", texts=2, file=file)


def answer(context, client, run_id, **body):
    made = ask(client, run_id, **body)
    worker = Worker(context, run_id, made["job_id"])
    worker.ship(scored(worker))
    finish(worker)
    return client.get(f"{url_of(run_id)}/{made['id']}").json()


def test_they_are_asked_for_and_come(context, client, trained):
    before = client.get(f"/v1/runs/{trained}").json()
    response = client.post(url_of(trained), json={"texts": TEXTS})
    made = response.json()
    assert response.headers["Location"] == f"{url_of(trained)}/{made['id']}"
    told = ("target", "template", "positive_label", "threshold", "status", "predictions")
    assert [made[name] for name in told] == [
        "adapter",
        "hate_speech_simple",
        "hate",
        None,
        "queued",
        None,
    ]
    worker = Worker(context, trained, made["job_id"])
    worker.ship(worker.line(type="progress", step=1, total_steps=2, epoch=0))
    now = client.get(f"{url_of(trained)}/{made['id']}").json()
    assert (now["status"], now["percent"], now["predictions"]) == ("running", 50.0, None)
    worker.ship(scored(worker))
    finish(worker)
    now = client.get(f"{url_of(trained)}/{made['id']}").json()
    assert now["percent"] == 100.0
    assert now["predictions"] == [
        {
            "label": "hate",
            "score": 0.6,
            "probabilities": {"hate": 0.6, "normal": 0.4},
            "truncated": False,
        },
        {
            "label": "normal",
            "score": 0.2,
            "probabilities": {"hate": 0.2, "normal": 0.8},
            "truncated": True,
        },
    ]
    assert client.get(f"/v1/runs/{trained}").json() == before
    events = client.get(f"/v1/runs/{trained}/events", params={"limit": 1000}).json()["data"]
    ours = [one for one in events if one["job_id"] == made["job_id"]]
    assert {one["data"]["prediction_id"] for one in ours} == {made["id"]}
    assert "one text" not in json.dumps(events)


def test_a_threshold_of_ones_own_decides(context, client, trained):
    strict = answer(context, client, trained, threshold=0.7)
    assert [one["label"] for one in strict["predictions"]] == ["normal", "normal"]
    lax = answer(context, client, trained, threshold=0.2)
    assert (lax["threshold"], [one["label"] for one in lax["predictions"]]) == (
        0.2,
        ["hate", "hate"],
    )


@pytest.mark.parametrize(
    ("threshold", "labels"),
    [(None, ["c", "a", "a"]), (0.5, ["c", "b", "a"]), (0.3, ["c", "b", "b"])],
)
def test_of_several_other_labels_the_most_probable_counts(threshold, labels):
    task = PredictionTask(
        target="adapter",
        step=1,
        merge=None,
        template="t",
        labels=["a", "b", "c"],
        positive_label="b",
        threshold=threshold,
        texts=["", "", ""],
    )
    values = [[0.3, 0.2, 0.5], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3]]
    found = apply_threshold(task, Scores(probabilities=values, truncated=[False] * 3))
    assert [one.label for one in found] == labels


def test_a_run_that_decides_by_a_fitted_threshold_has_it_in_its_report(client, context, dataset_id):
    body = {
        "dataset_id": dataset_id,
        "preset": "quick_test",
        "evaluation": {"threshold": "fitted"},
    }
    run_id = client.post("/v1/runs", json=body).json()["id"]
    leave_adapter(Worker(context, run_id))
    refused = client.post(url_of(run_id), json={"texts": TEXTS})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/threshold"
    assert "set a number from 0 to 1, or argmax" in refused.json()["detail"]
    unknown = client.post(url_of(run_id), json={"texts": TEXTS, "template": "none"})
    assert [error["pointer"] for error in unknown.json()["errors"]] == ["/template"]
    assert ask(client, run_id, threshold="argmax")["threshold"] is None


def test_a_run_with_nothing_to_predict_with_says_so(client, run_id):
    for body in ({}, {"target": "checkpoint", "step": 2}, {"target": "merged"}):
        refused = client.post(url_of(run_id), json={"texts": TEXTS} | body)
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:fairtune:conflict")
        assert "has no" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"texts": []}, "/texts"),
        ({"texts": ["a"] * 257}, "/texts"),
        ({"texts": [""]}, "/texts/0"),
        ({"texts": ["a", " \n"]}, "/texts/1"),
        ({"texts": [1]}, "/texts/0"),
        ({"texts": "a"}, "/texts"),
        ({}, "/texts"),
        ({"texts": ["a"], "target": "base"}, "/target"),
        ({"texts": ["a"], "step": 3}, "/step"),
        ({"texts": ["a"], "threshold": 2}, "/threshold"),
        ({"texts": ["a"], "threshold": "fitted"}, "/threshold"),
        ({"texts": ["a"], "threshold": True}, "/threshold"),
        ({"texts": ["a"], "template": "none"}, "/template"),
        ({"texts": ["a"], "text": "b"}, "/text"),
    ],
)
def test_what_is_wrong_is_named(client, trained, body, pointer):
    refused = client.post(url_of(trained), json=body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == pointer


def upload(client, files) -> str:
    content = {
        name: (f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        for name, rows in files.items()
    }
    response = client.post("/v1/datasets", data={"name": "chats"}, files=content)
    assert response.status_code == 201, response.text
    return response.json()["id"]


@pytest.fixture
def trained_on_chats(client, context) -> str:
    def chats(count):
        return [
            {
                "messages": [
                    {"role": "system", "content": "Judge."},
                    {"role": "user", "content": f"post {number}"},
                    {"role": "assistant", "content": ("BAD", "GOOD")[number % 2]},
                ],
                "label": ("hate", "normal")[number % 2],
            }
            for number in range(count)
        ]

    dataset = upload(client, {"train": chats(4), "test": chats(2)})
    body = {"dataset_id": dataset, "preset": "quick_test"}
    run_id = client.post("/v1/runs", json=body).json()["id"]
    worker = Worker(context, run_id)
    leave_adapter(worker)
    finish(worker)
    return run_id


CHAT = [{"role": "system", "content": "Judge."}, {"role": "user", "content": "post"}]


def test_a_run_trained_on_chats_takes_messages(context, client, trained_on_chats):
    response = client.post(url_of(trained_on_chats), json={"messages": [CHAT, CHAT[1:]]})
    assert response.status_code == 201, response.text
    job = response.json()
    with context.database.read() as session:
        task = predictions.find(session, trained_on_chats, job["id"]).task
    assert (task.texts, task.messages) == ([], [CHAT, CHAT[1:]])
    worker = Worker(context, trained_on_chats, job["job_id"])
    worker.ship(scored(worker))
    finish(worker)
    finished = client.get(f"{url_of(trained_on_chats)}/{job['id']}").json()
    assert [prediction["label"] for prediction in finished["predictions"]] == ["hate", "normal"]


@pytest.mark.parametrize(
    ("body", "pointer", "remedy"),
    [
        ({"texts": ["a"]}, "/texts", "send messages"),
        ({"texts": ["a"], "template": "label_only"}, "/texts", "send messages"),
        ({}, "/texts", "at least 1"),
        ({"messages": []}, "/messages", "at least 1"),
        ({"messages": [[]]}, "/messages/0", "at least 1"),
        ({"messages": [CHAT], "texts": ["a"]}, "/messages", "not both"),
        ({"messages": [CHAT], "template": "label_only"}, "/template", "omit it"),
        ({"messages": [CHAT[:1]]}, "/messages/0/0/role", "must be the user's"),
        (
            {"messages": [[*CHAT, {"role": "assistant", "content": "BAD"}]]},
            "/messages/0/2/role",
            "must be the user's",
        ),
        ({"messages": [[{"role": "tool", "content": "a"}]]}, "/messages/0/0/role", "user"),
        ({"messages": [[{"role": "user", "content": " "}]]}, "/messages/0/0/content", "empty"),
        ({"messages": [[{"role": "user"}]]}, "/messages/0/0/content", "missing"),
    ],
)
def test_what_a_run_trained_on_chats_cannot_take_is_named(
    client, trained_on_chats, body, pointer, remedy
):
    refused = client.post(url_of(trained_on_chats), json=body)
    assert refused.status_code == 422
    (error,) = refused.json()["errors"]
    assert error["pointer"] == pointer
    assert remedy in error["detail"]


@pytest.mark.parametrize(
    ("content", "chats"),
    [
        ('{"messages": [{"role": "user", "content": "a"}]}\n\n[{"role": "user", "content": "b"}]\n',
         [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]]),
    ],
)  # fmt: skip
def test_the_command_reads_chats(monkeypatch, tmp_path, content, chats):
    sent = []
    connect_to(monkeypatch, labelling_server(lambda _chat: "hate", sent), predict)
    file = tmp_path / "chats.jsonl"
    file.write_text(content)
    result = CliRunner().invoke(app, ["predict", "run_1", "--messages", str(file)])
    assert result.exit_code == 0, result.output
    assert sent == [{"messages": chats}]
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["label"] for line in lines] == ["hate", None, "hate"]
    assert lines[0]["messages"] == chats[0]


@pytest.mark.parametrize("line", ["{", '"a"', "{}", '{"messages": 1}'])
def test_a_line_that_is_no_chat_is_named(tmp_path, line):
    file = tmp_path / "chats.jsonl"
    file.write_text(f"[]\n{line}\n")
    result = CliRunner().invoke(app, ["predict", "run_1", "--messages", str(file)])
    assert result.exit_code == 1
    assert "line 2" in result.output


def test_a_run_trained_on_texts_takes_no_messages(client, trained):
    refused = client.post(url_of(trained), json={"messages": [CHAT]})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/messages"
    assert "send texts" in refused.json()["detail"]


def test_they_have_a_queue_of_their_own(context, client, trained, dataset_id):
    waiting = client.post("/v1/runs", json={"dataset_id": dataset_id}).json()
    first, second = ask(client, trained), ask(client, trained)
    assert waiting["queue_position"] == 1
    assert [first["queue_position"], second["queue_position"]] == [1, 2]
    messages = celery_app.folder_of(context.settings) / "messages"
    assert len(list(messages.glob("*.predictions.msg"))) == 2
    for one in messages.glob("*.msg"):
        one.unlink()
    # The messages are lost: the sweep sends one to each queue.
    Sweeper(context.settings, context.database, context.store, context.celery).sweep()
    assert len(list(messages.glob("*.predictions.msg"))) == 1
    assert len(list(messages.glob("*.jobs.msg"))) == 1


def test_a_program_gets_texts_and_weights_and_no_rows(
    context, client, trained, tmp_path, monkeypatch
):
    made = ask(client, trained, threshold=0.5)
    working = House(context, trained, tmp_path, monkeypatch, made["job_id"])
    working.play(
        f"""
        assert job["task"]["texts"] == {TEXTS!r}
        assert job["task"]["labels"] == ["hate", "normal"]
        assert (directory / job["adapter"] / "adapter_model.safetensors").exists()
        assert not (directory / "dataset.parquet").exists()
        content = json.dumps({SCORES!r}).encode()
        (directory / "predictions.json").write_bytes(content)
        say("predictions", texts=2, file={{"path": "predictions.json", "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest()}})
        """
    )
    assert working.job.status == "succeeded", working.job.failure_detail
    found = client.get(f"{url_of(trained)}/{made['id']}").json()
    assert [one["label"] for one in found["predictions"]] == ["hate", "normal"]


def test_what_is_not_there_is_404(client, trained):
    made = ask(client, trained)
    assert client.post(url_of("run_none"), json={"texts": TEXTS}).status_code == 404
    assert client.get(f"{url_of(trained)}/pred_none").status_code == 404
    assert client.get(f"{url_of('run_none')}/{made['id']}").status_code == 404


def test_the_same_key_asks_once(client, trained):
    key = {"Idempotency-Key": "k"}
    first, again = (
        client.post(url_of(trained), json={"texts": TEXTS}, headers=key) for _ in range(2)
    )
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]


# -- on the command line ---------------------------------------------------------------------------


@pytest.fixture
def command(client, monkeypatch):
    """`fairtune predict` against the server in this process."""
    connect_to(monkeypatch, forwarding(client), predict)
    monkeypatch.setattr(predict, "_POLL_SECONDS", 0)
    return lambda *arguments, **named: CliRunner().invoke(app, ["predict", *arguments], **named)


@pytest.fixture
def polled(client, monkeypatch):
    """Call a function with the job's id before each answer to a poll."""

    def install(before):
        request = client.request

        def answered(method, url, **named):
            if method == "GET" and "/predictions/" in str(url):
                before(request("GET", url).json()["job_id"])
            return request(method, url, **named)

        monkeypatch.setattr(client, "request", answered)

    return install


def test_the_command_prints_a_line_for_each_text(context, client, trained, command, polled):
    def work(job_id):
        worker = Worker(context, trained, job_id)
        worker.ship(scored(worker))
        finish(worker)

    polled(work)
    said = command(trained, "--file", "-", "--threshold", "0.5", input="one text\n\nanother\n")
    assert said.exit_code == 0, said.output
    printed = [line for line in said.stdout.splitlines() if line.startswith("{")]  # logs beside
    assert [json.loads(line) for line in printed] == [
        {"text": "one text", "label": "hate", "score": 0.6, "threshold": 0.5},
        {"text": "", "label": None, "score": None, "threshold": 0.5},
        {"text": "another", "label": "normal", "score": 0.2, "threshold": 0.5},
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is no text"),
        (["a", "--file", "x"], "use only one of"),
        (["--file", "/nowhere"], "/nowhere"),
        (["a", "--threshold", "high"], "a number from 0 to 1"),
        (["a"], "the run is queued and has no adapter"),
    ],
)
def test_the_command_says_what_is_wrong(command, run_id, arguments, said):
    ended = command(run_id, *arguments)
    assert ended.exit_code == 1
    assert said in ended.output


def test_the_command_gives_up_in_time_and_says_what_to_do(context, client, trained, command):
    ask(client, trained)  # one that waits before it
    ended = command(trained, "a", "--timeout", "0.05")
    assert ended.exit_code == ExitStatus.TIMEOUT
    newest = client.get(url_of(trained)).json()["data"][0]
    for said in (
        f"--timeout: after 0.05 s {newest['id']} is queued at position 2.",
        f"GET {url_of(trained)}/{newest['id']},",
        "queue predictions",
        "FAIRTUNE_QUEUES",
    ):
        assert said in ended.stderr
    assert "has been queued" not in ended.stderr
    assert newest["status"] == "queued"
    refused = command(trained, "a", "--timeout", "-1")
    assert (refused.exit_code, "--timeout" in refused.stderr) == (2, True)


def test_the_command_says_once_that_nobody_takes_them_up(
    context, client, trained, command, polled, monkeypatch
):
    monkeypatch.setattr(predict, "_UNCLAIMED_SECONDS", -1)
    polls = []

    def work_late(job_id):
        polls.append(job_id)
        if len(polls) == 5:
            worker = Worker(context, trained, job_id)
            worker.ship(scored(worker))
            finish(worker)

    polled(work_late)
    ended = command(trained, "one text", "another", "--timeout", "100")
    assert ended.exit_code == 0, ended.output
    (told,) = [line for line in ended.stderr.splitlines() if "no worker has started it" in line]
    assert "at position 1" in told
    assert "FAIRTUNE_QUEUES" in told


def test_they_can_be_cancelled(context, client, trained):
    made = ask(client, trained)
    cancelled = client.post(f"{url_of(trained)}/{made['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    done = answer(context, client, trained)
    assert client.post(f"{url_of(trained)}/{done['id']}/cancel").status_code == 409
    assert client.post(f"{url_of(trained)}/pred_none/cancel").status_code == 404


def test_scores_that_were_changed_or_are_gone_are_not_passed_on(context, client, trained):
    made = answer(context, client, trained)
    with context.database.read() as session:
        file = predictions.find(session, trained, made["id"]).file
    where = f"{url_of(trained)}/{made['id']}"
    other = context.settings.data_dir / "other"
    other.write_bytes(b"{}")
    context.store.put_file(other, file.key)
    for _ in range(2):
        refused = client.get(where)
        assert refused.status_code == 409
        assert "request the predictions again" in refused.json()["detail"]
        (context.store.root / file.key).unlink(missing_ok=True)


def test_they_are_listed_newest_first_without_texts(context, client, trained, dataset_id):
    first = answer(context, client, trained)
    second = ask(client, trained, threshold=0.7)
    third = ask(client, trained, template="label_only")
    other = client.post("/v1/runs", json={"dataset_id": dataset_id}).json()["id"]
    assert client.get(url_of(other)).json() == {"data": [], "has_more": False, "next": None}
    whole = client.get(url_of(trained)).json()
    made = [client.get(f"{url_of(trained)}/{one['id']}").json() for one in (third, second, first)]
    for one in made:
        del one["predictions"]
    assert whole == {"data": made, "has_more": False, "next": None}
    told = [(one["status"], one["queue_position"], one["threshold"]) for one in made]
    assert told == [("queued", 2, None), ("queued", 1, 0.7), ("succeeded", None, None)]
    page = client.get(url_of(trained), params={"limit": 2}).json()
    assert (page["data"], page["has_more"], page["next"]) == (made[:2], True, second["id"])
    rest = client.get(url_of(trained), params={"limit": 2, "after": page["next"]}).json()
    assert rest == {"data": made[2:], "has_more": False, "next": None}
    assert client.get(url_of("run_none")).status_code == 404
    refused = client.get(url_of(trained), params={"limit": 0})
    assert refused.json()["errors"][0]["pointer"] == "/query/limit"


def test_a_list_reads_no_texts(client, trained, read):
    ask(client, trained)
    read.clear()
    assert len(client.get(url_of(trained)).json()["data"]) == 1
    (asked,) = [one for one in read if "ORDER BY job.id DESC" in one]
    assert not re.search(r"\sjob\.params(,|\s*\n)", asked)  # but what is taken out of it


def test_a_run_is_deleted_without_reading_its_texts(client, trained, read):
    for _ in range(2):
        ask(client, trained)
    read.clear()
    assert client.delete(f"/v1/runs/{trained}").status_code == 204
    locking = [one for one in read if "FROM job" in one and "job.status" in one]
    assert len(locking) >= 2
    assert not [one for one in read if "job.params" in one]


def test_a_run_that_is_being_deleted_takes_nothing_more(context, client, trained):
    made = ask(client, trained)
    with context.database.write() as session:
        session.execute(update(Run).where(col(Run.id) == trained).values(deleted_at=db_now()))
    assert client.post(url_of(trained), json={"texts": ["a"]}).status_code == 404
    with context.database.write() as session:
        assert jobs.claim(session, made["job_id"], "a worker", 60) is None
