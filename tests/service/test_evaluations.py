"""Evaluations as jobs of their own: requests, attempts, results."""

import hashlib
import json
import textwrap

import pytest

from service.domain.job_kinds import EVALUATE
from service.domain.states import FailureReason, JobStatus
from service.queue import celery_app
from service.queue.sweep import Sweeper
from service.store import jobs, program_events
from service.store.jobs import Fenced
from tests.support.attempts import House, in_background
from tests.support.fake_worker import Worker
from tests.support.installation import wait_until
from tests.support.trained_runs import finish, leave_adapter, save


def url_of(run_id):
    return f"/v1/runs/{run_id}/evaluations"


def ask(client, run_id, **body):
    answer = client.post(url_of(run_id), json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def scored(worker, content=b"PAR1", **fields):
    """What a program says when it has scored a split."""
    told = {"target": "adapter", "step": 4, "split": "test", "template": "hate_speech_simple"}
    told |= fields
    path = f"evaluations/{told['target']}-{told['split']}.parquet"
    file = worker.file(path, content)
    return worker.line(type="evaluation", metrics={"f1": 0.5}, predictions=file, **told)


@pytest.fixture
def trained(client, run_id, worker) -> str:
    """A run that has succeeded, with checkpoints at 2 and 4, the best at 2, and an adapter."""
    save(worker, 2, best_step=2)
    save(worker, 4, best_step=2)
    worker.ship(
        scored(worker, target="base", step=None),
        scored(worker, step=2),
        worker.line(type="artifact", file=worker.file("training.log", b"trained\n")),
    )
    leave_adapter(worker)
    finish(worker)
    return run_id


@pytest.fixture
def unlabelled_id(client) -> str:
    """Another dataset: its test rows lack labels, its validation rows have one label of the two."""
    train = [{"text": f"t{n}", "label": ("hate", "normal")[n % 2]} for n in range(4)]
    files = {
        "train": train,
        "validation": [{"text": "v", "label": "hate"}],
        "test": [{"text": "a"}, {"text": "b"}],
    }
    return upload(client, files)


def upload(client, files, labels=("hate", "normal")):
    content = {
        name: "".join(json.dumps(row) + "\n" for row in rows) for name, rows in files.items()
    }
    fields = {"name": "other", "mapping": json.dumps({"labels": labels})}
    answer = client.post("/v1/datasets", data=fields, files=content)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


# -- asking ----------------------------------------------------------------------------------------


def test_what_is_left_out_is_the_runs_own(client, trained):
    run = client.get(f"/v1/runs/{trained}").json()
    answer = client.post(url_of(trained))
    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"{url_of(trained)}/{made['id']}"
    assert made["id"].startswith("eval_")
    told = ("target", "step", "dataset_id", "split", "template", "max_samples")
    assert [made[name] for name in told] == [
        "adapter",
        2,  # the best checkpoint's weights are the adapter's
        run["spec"]["dataset_id"],
        "test",
        "hate_speech_simple",
        None,
    ]
    assert (made["status"], made["queue_position"], made["percent"]) == ("queued", 1, 0.0)
    assert (made["metrics"], made["failure"], made["superseded"]) == ({}, None, False)
    assert client.get(answer.headers["Location"]).json() == made
    # The run's state is its train job's.
    assert client.get(f"/v1/runs/{trained}").json() == run


def test_a_message_is_sent_for_it(context, client, trained):
    messages = celery_app.folder_of(context.settings) / "messages"
    before = len(list(messages.glob("*.msg")))
    ask(client, trained)
    assert len(list(messages.glob("*.msg"))) == before + 1


def test_before_its_training_the_base_model_is_all_that_a_run_has(context, client, run_id):
    base = ask(client, run_id, target="base")
    assert (base["step"], base["status"]) == (None, "queued")
    assert base["queue_position"] == 2  # the run itself was first
    for body in ({}, {"target": "checkpoint", "step": 2}):
        refused = client.post(url_of(run_id), json=body)
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:fairtune:conflict")
        assert "is queued and has no" in refused.json()["detail"]
    worker = Worker(context, run_id)
    save(worker, 2)
    assert ask(client, run_id, target="checkpoint", step=2)["step"] == 2
    leave_adapter(worker)
    assert client.post(url_of(run_id), json={}).status_code == 201


def test_the_base_model_has_the_baselines_template(client, dataset_id):
    body = {
        "dataset_id": dataset_id,
        "preset": "quick_test",
        "evaluation": {"baseline_template": "hate_speech_policy"},
    }
    run_id = client.post("/v1/runs", json=body).json()["id"]
    assert ask(client, run_id, target="base")["template"] == "hate_speech_policy"
    named = ask(client, run_id, target="base", template="hate_speech_simple")
    assert named["template"] == "hate_speech_simple"


@pytest.mark.parametrize(
    ("body", "pointer", "remedy"),
    [
        ({"targets": "base"}, "/targets", "unknown field"),
        ({"target": "tuned"}, "/target", "'base', 'adapter'"),
        ({"target": "merged", "step": 2}, "/step", "omit it"),
        ({"target": "checkpoint"}, "/step", "the run has checkpoints of steps 2, 4"),
        ({"target": "checkpoint", "step": 3}, "/step", "the run has checkpoints of steps 2, 4"),
        ({"target": "checkpoint", "step": "2"}, "/step", "whole number"),
        ({"target": "checkpoint", "step": -1}, "/step", "must be at least"),
        ({"target": "checkpoint", "step": True}, "/step", "whole number"),
        ({"step": 2}, "/step", "omit it"),
        ({"target": "base", "step": 2}, "/step", "omit it"),
        ({"dataset_id": "ds_none"}, "/dataset_id", "no dataset"),
        ({"dataset_id": "ds_\0"}, None, ""),
        ({"split": "dev"}, "/split", "'train', 'validation' or 'test'"),
        ({"template": "none"}, "/template", "available templates: hate_speech_policy"),
        ({"max_samples": 0}, "/max_samples", "must be at least"),
        ({"max_samples": 1.5}, "/max_samples", "whole number"),
    ],
)
def test_what_is_wrong_is_named_with_a_remedy(client, trained, body, pointer, remedy):
    answer = client.post(url_of(trained), json=body)
    assert answer.status_code == 422
    if pointer is not None:
        assert answer.json()["errors"][0]["pointer"] == pointer
        assert remedy in answer.json()["errors"][0]["detail"]
    assert len(client.get(url_of(trained)).json()["data"]) == 2


def test_a_body_that_is_no_object_is_refused(client, trained):
    answer = client.post(url_of(trained), json=[1])
    assert answer.status_code == 422
    assert "send a JSON object" in answer.json()["detail"]


def test_the_rows_may_lack_labels_but_have_none_that_the_run_does_not_know(client, trained):
    rows = [{"text": f"t{n}", "label": ("hate", "spam")[n % 2]} for n in range(4)]
    validation = [{"text": "v", "label": "hate"}]
    other = upload(client, {"train": rows, "validation": validation}, ["hate", "spam"])
    refused = client.post(url_of(trained), json={"dataset_id": other, "split": "train"})
    assert refused.status_code == 422
    assert refused.json()["errors"] == [
        {
            "pointer": "/dataset_id",
            "detail": "rows of the split train have the label 'spam', which no training row of "
            "the run has; its labels are hate, normal: upload the rows with those",
        }
    ]
    assert ask(client, trained, dataset_id=other, split="validation")["dataset_id"] == other
    refused = client.post(url_of(trained), json={"dataset_id": other})
    assert refused.json()["errors"][0]["pointer"] == "/split"
    assert "it has train, validation" in refused.json()["errors"][0]["detail"]


def test_rows_without_labels_are_taken(client, trained, unlabelled_id):
    assert ask(client, trained, dataset_id=unlabelled_id)["status"] == "queued"


def chats(label_words, count=4):
    turns = [
        [{"role": "user", "content": f"t{n}"}, {"role": "assistant", "content": word}]
        for n in range(count)
        for word in (label_words[n % len(label_words)][1],)
    ]
    labels = [label_words[n % len(label_words)][0] for n in range(count)]
    return [
        {"messages": chat, "label": label} if label else {"messages": chat}
        for chat, label in zip(turns, labels, strict=True)
    ]


def test_chats_have_prompts_of_their_own_and_texts_need_a_template(client, dataset_id, trained):
    said = [("hate", "yes"), ("normal", "no")]
    files = {"train": chats(said), "test": chats(said, 2)}
    of_chats = upload(client, files)
    refused = client.post(
        url_of(trained), json={"dataset_id": of_chats, "template": "hate_speech_simple"}
    )
    assert refused.json()["errors"][0]["pointer"] == "/template"
    assert ask(client, trained, dataset_id=of_chats)["template"] == "hate_speech_simple"
    body = {"dataset_id": of_chats, "preset": "quick_test"}
    run_id = client.post("/v1/runs", json=body).json()["id"]
    assert ask(client, run_id, target="base")["status"] == "queued"
    on_texts = {"target": "base", "dataset_id": dataset_id}
    refused = client.post(url_of(run_id), json=on_texts)
    assert refused.json()["errors"][0]["pointer"] == "/template"
    assert "trained on chats" in refused.json()["errors"][0]["detail"]
    assert ask(client, run_id, **on_texts, template="label_only")["template"] == "label_only"


def test_a_template_has_a_word_for_every_label_that_the_run_knows(client, dataset_id):
    rows = [{"text": f"t{n}", "label": ("hate", "spam")[n % 2]} for n in range(4)]
    test = [{"text": "t", "label": "hate"}]
    other = upload(client, {"train": rows, "test": test}, ["hate", "spam"])
    body = {"dataset_id": other, "preset": "quick_test", "template": "label_only"}
    run_id = client.post("/v1/runs", json=body).json()["id"]
    assert ask(client, run_id, target="base")["template"] == "label_only"
    refused = client.post(url_of(run_id), json={"target": "base", "template": "hate_speech_simple"})
    assert refused.status_code == 422
    assert "no word for the label 'spam'" in refused.json()["errors"][0]["detail"]


def test_a_run_without_labels_has_nothing_to_score_against(client):
    other = upload(client, {"train": chats([(None, "yes"), (None, "no")])})
    run_id = client.post("/v1/runs", json={"dataset_id": other}).json()["id"]
    refused = client.post(url_of(run_id), json={"target": "base", "split": "train"})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:fairtune:conflict")
    assert "no labels" in refused.json()["detail"]


def test_the_same_key_asks_once(client, trained):
    key = {"Idempotency-Key": "k"}
    first, again = (client.post(url_of(trained), json={}, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert again.headers["Location"] == first.headers["Location"]
    other = client.post(url_of(trained), json={"target": "base"}, headers=key)
    assert other.status_code == 422
    assert len(client.get(url_of(trained)).json()["data"]) == 3


def test_what_is_not_there_is_404(client, trained, dataset_id):
    other = client.post("/v1/runs", json={"dataset_id": dataset_id}).json()["id"]
    made = ask(client, trained)["id"]
    own = client.get(url_of(trained)).json()["data"][-1]["id"]
    assert client.post(url_of("run_none"), json={}).status_code == 404
    for run_id, evaluation in ((trained, "eval_none"), (other, made), (other, own)):
        for what in ("", "/predictions", "/logs"):
            assert client.get(f"{url_of(run_id)}/{evaluation}{what}").status_code == 404
        assert client.post(f"{url_of(run_id)}/{evaluation}/cancel").status_code == 404
    # The train job's own number makes no evaluation.
    train = client.get(f"/v1/runs/{trained}/events").json()["data"][0]["job_id"]
    assert client.get(f"{url_of(trained)}/{EVALUATE.result_id(train)}").status_code == 404


# -- by the hands of a worker ----------------------------------------------------------------------


def test_both_kinds_stand_in_one_queue(client, trained, dataset_id):
    first = ask(client, trained)
    run = client.post("/v1/runs", json={"dataset_id": dataset_id}).json()
    second = ask(client, trained)
    places = [client.get(f"{url_of(trained)}/{one['id']}").json() for one in (first, second)]
    assert [one["queue_position"] for one in places] == [1, 3]
    assert run["queue_position"] == 2
    listed = client.get("/v1/runs").json()["data"]
    assert [one["id"] for one in listed] == [run["id"], trained]
    figures = client.get("/metrics").text
    assert 'fairtune_jobs{kind="evaluate",status="queued"} 2.0' in figures
    assert "fairtune_queue_depth 3.0" in figures


def test_it_is_made_by_a_worker_and_nothing_of_the_runs_changes(context, client, trained):
    before = client.get(f"/v1/runs/{trained}").json()
    kept = {
        what: client.get(f"/v1/runs/{trained}/{what}").text
        for what in ("metrics", "checkpoints", "artifacts", "logs")
    }
    made = ask(client, trained, target="checkpoint", step=4)
    worker = Worker(context, trained, made["job_id"])
    where = f"{url_of(trained)}/{made['id']}"
    waiting = client.get(f"{where}/predictions")
    assert (waiting.status_code, waiting.json()["type"]) == (409, "urn:fairtune:conflict")
    assert "is running" in waiting.json()["detail"]
    worker.ship(
        worker.line(type="phase", phase="evaluating"),
        worker.line(type="progress", step=3, total_steps=12, epoch=0, eta_seconds=9.0),
        worker.line(type="warning", code="rows_truncated", detail="1 row"),
    )
    now = client.get(where).json()
    assert (now["status"], now["phase"], now["percent"]) == ("running", "evaluating", 25.0)
    assert (now["eta_seconds"], now["attempts"], now["metrics"]) == (9.0, 1, {})
    worker.ship(scored(worker, b"PAR1 of 4", target="checkpoint", step=4))
    finish(worker)
    now = client.get(where).json()
    assert (now["status"], now["metrics"], now["eta_seconds"]) == ("succeeded", {"f1": 0.5}, None)
    got = client.get(f"{where}/predictions")
    assert got.content == b"PAR1 of 4"
    assert got.headers["etag"] == f'"{hashlib.sha256(got.content).hexdigest()}"'
    assert client.get(f"/v1/runs/{trained}").json() == before
    for what, text in kept.items():
        assert client.get(f"/v1/runs/{trained}/{what}").text == text
    listed = client.get(url_of(trained)).json()["data"]
    assert [(one["target"], one["step"]) for one in reversed(listed)] == [
        ("base", None),
        ("adapter", 2),
        ("checkpoint", 4),
    ]
    assert {one["status"] for one in listed} == {"succeeded"}
    events = client.get(f"/v1/runs/{trained}/events", params={"limit": 1000}).json()["data"]
    ours = [event for event in events if event["job_id"] == made["job_id"]]
    assert {event["data"]["evaluation_id"] for event in ours} == {made["id"]}
    assert [event["type"] for event in ours] == [
        "status",
        "status",
        "phase",
        "warning",
        "evaluation",
        "status",
    ]
    assert not [e for e in events if e not in ours and "evaluation_id" in e["data"]]


def test_the_runs_stream_ends_with_the_run_whatever_is_evaluated(client, trained):
    ask(client, trained)
    with client.stream(
        "GET", f"/v1/runs/{trained}/events", headers={"accept": "text/event-stream"}
    ) as stream:
        told = [json.loads(line[6:]) for line in stream.iter_lines() if line[:6] == "data: "]
    assert [event["data"]["kind"] for event in told if event["type"] == "status"] == [
        "train",
        "train",
        "train",
        "evaluate",
    ]


@pytest.mark.parametrize(
    "line",
    [
        {"type": "metrics", "step": 1, "epoch": 0, "values": {"loss": 1.0}},
        {"type": "rewound", "step": 0},
        {"type": "artifact", "file": {"path": "README.md", "size": 1, "sha256": "0"}},
        {
            "type": "checkpoint",
            "step": 9,
            "epoch": 0,
            "path": "checkpoints/checkpoint-9",
            "files": [],
            "metrics": {},
            "best_step": None,
        },
    ],
    ids=lambda line: line["type"],
)
def test_what_is_the_runs_own_an_evaluation_cannot_say(context, client, trained, line):
    worker = Worker(context, trained, ask(client, trained)["job_id"])
    before = client.get(f"/v1/runs/{trained}/events").text
    with pytest.raises(RuntimeError, match="of kind evaluate may not emit"):
        worker.ship(worker.line(type="log", message="a"), worker.line(**line))
    assert client.get(f"/v1/runs/{trained}/events").text == before
    steps = [one["step"] for one in client.get(f"/v1/runs/{trained}/checkpoints").json()["data"]]
    assert steps == [2, 4]


def lose(worker):
    """Its worker is gone, and the sweep notices."""
    context = worker.context
    with context.database.write() as session:
        jobs.renew(session, worker.current, -1)
    sweeper = Sweeper(context.settings, context.database, context.store, context.celery)
    sweeper._renewal_seconds = 0
    sweeper.sweep()


def test_when_a_worker_is_lost_another_makes_it(context, client, trained):
    made = ask(client, trained)
    where = f"{url_of(trained)}/{made['id']}"
    lost = Worker(context, trained, made["job_id"])
    lost.ship(lost.line(type="progress", step=3, total_steps=12, epoch=0))
    lost.file("evaluations/adapter-test.parquet", b"half")
    kept = len([path for path in (context.store.root / "runs").rglob("*") if path.is_file()])
    lose(lost)
    assert client.get(where).json()["status"] == "queued"
    left = [path for path in (context.store.root / "runs").rglob("*") if path.is_file()]
    assert len(left) == kept - 1  # of the run's files none is gone
    second = Worker(context, trained, made["job_id"])
    with pytest.raises(Fenced):
        lost.ship(scored(lost, b"late"), claim=lost.current)
    second.ship(scored(second, b"PAR1 again"))
    finish(second)
    assert client.get(f"{where}/predictions").content == b"PAR1 again"
    assert client.get(where).json()["attempts"] == 2
    assert client.get(f"/v1/runs/{trained}").json()["attempts"] == 1


def test_an_attempt_after_the_predictions_replaces_them(context, client, trained):
    made = ask(client, trained)
    where = f"{url_of(trained)}/{made['id']}"
    for content in (b"PAR1 once", b"PAR1 twice"):
        worker = Worker(context, trained, made["job_id"])
        worker.ship(scored(worker, content))
        if content == b"PAR1 once":
            lose(worker)
    finish(worker)
    assert client.get(f"{where}/predictions").content == b"PAR1 twice"
    assert len(client.get(url_of(trained)).json()["data"]) == 3


def test_three_lost_workers_fail_it_and_the_run_stays_as_it_is(context, client, trained):
    made = ask(client, trained)
    for _ in range(3):
        lose(Worker(context, trained, made["job_id"]))
    failed = client.get(f"{url_of(trained)}/{made['id']}").json()
    assert (failed["status"], failed["failure"]["reason"]) == ("failed", "worker_lost")
    assert "request the evaluation again" in failed["failure"]["advice"]
    refused = client.get(f"{url_of(trained)}/{made['id']}/predictions")
    assert refused.status_code == 409
    assert "failed before it had predictions" in refused.json()["detail"]
    assert client.get(f"/v1/runs/{trained}").json()["status"] == "succeeded"


def test_cancelling(context, client, trained):
    waiting, running = ask(client, trained), ask(client, trained)
    before = client.get(f"/v1/runs/{trained}").json()

    def cancel(one):
        return client.post(f"{url_of(trained)}/{one['id']}/cancel")

    assert cancel(waiting).json()["status"] == "cancelled"
    assert cancel(waiting).json()["status"] == "cancelled"
    worker = Worker(context, trained, running["job_id"])
    asked = cancel(running).json()
    assert (asked["status"], asked["requested"]) == ("running", "cancel")
    with context.database.write() as session:
        job = jobs.lock_for_worker(session, worker.current)
        told = FailureReason.WORKER_LOST
        jobs.return_to_queue(session, job, worker.current.token, told, "", free=True)
    where = f"{url_of(trained)}/{running['id']}"
    assert client.get(where).json()["status"] == "cancelled"
    assert client.get(f"{where}/predictions").status_code == 409
    *_, own = client.get(url_of(trained)).json()["data"]
    refused = cancel(own)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:fairtune:conflict")
    done = ask(client, trained)
    finish(Worker(context, trained, done["job_id"]))
    refused = cancel(done)
    assert refused.status_code == 409
    assert "the evaluation has already succeeded" in refused.json()["detail"]
    assert client.post(f"{where}/cancel", json={"now": True}).status_code == 422
    assert client.get(f"/v1/runs/{trained}").json() == before


def test_the_list_comes_in_pages_newest_first(client, trained):
    asked = [ask(client, trained)["id"] for _ in range(3)]
    own = [one["id"] for one in client.get(url_of(trained)).json()["data"]][-2:]
    pages, after = [], {}
    while True:
        answer = client.get(url_of(trained), params={"limit": 2} | after).json()
        pages.append([one["id"] for one in answer["data"]])
        if not answer["has_more"]:
            break
        after = {"after": answer["next"]}
    assert answer["next"] is None
    assert pages == [[asked[2], asked[1]], [asked[0], own[0]], [own[1]]]
    nothing = client.get(url_of(trained), params={"after": own[1]}).json()
    assert nothing == {"data": [], "has_more": False, "next": None}
    assert client.get(url_of(trained), params={"limit": 0}).status_code == 422


def test_the_runs_own_is_shown_as_made(client, trained):
    adapter, base = client.get(url_of(trained)).json()["data"]
    assert (base["target"], base["step"], adapter["step"]) == ("base", None, 2)
    for own in (base, adapter):
        assert (own["status"], own["phase"], own["percent"]) == ("succeeded", "done", 100.0)
        assert client.get(f"{url_of(trained)}/{own['id']}").json() == own
        assert client.get(f"{url_of(trained)}/{own['id']}/predictions").content == b"PAR1"
    logs = client.get(f"{url_of(trained)}/{base['id']}/logs")
    assert logs.status_code == 404
    assert "/logs" in logs.json()["detail"]


# -- weights that the run no longer has ------------------------------------------------------------


def test_going_back_takes_evaluations_of_later_weights_back(context, client, run_id, worker):
    for step in (2, 4):
        save(worker, step, best_step=2)
    leave_adapter(worker)
    asked = {
        name: ask(client, run_id, **body)
        for name, body in {
            "done 2": {"target": "checkpoint", "step": 2},
            "done 4": {"target": "checkpoint", "step": 4},
            "running": {"target": "checkpoint", "step": 4},
            "queued": {"target": "adapter"},
            "base": {"target": "base"},
        }.items()
    }
    for step in (2, 4):
        by = Worker(context, run_id, asked[f"done {step}"]["job_id"])
        by.ship(scored(by, target="checkpoint", step=step))
        finish(by)
    running = Worker(context, run_id, asked["running"]["job_id"])
    dropped = worker.ship(worker.line(type="rewound", step=2))
    assert [one.step for one in dropped] == [4, None]
    predictions = context.store.root / dropped[1].prefix / "checkpoint-test.parquet"
    assert predictions.is_file()

    def now(name):
        return client.get(f"{url_of(run_id)}/{asked[name]['id']}").json()

    told = {name: (now(name)["status"], now(name)["superseded"]) for name in asked}
    assert told == {
        "done 2": ("succeeded", False),
        "done 4": ("succeeded", True),
        "running": ("cancelled", False),
        "queued": ("cancelled", False),
        "base": ("queued", False),
    }
    assert now("done 4")["metrics"] == {}
    refused = client.get(f"{url_of(run_id)}/{asked['done 4']['id']}/predictions")
    assert refused.status_code == 409
    assert "past which the run was rewound" in refused.json()["detail"]
    with pytest.raises(Fenced):
        running.ship(scored(running, target="checkpoint", step=4))
    events = client.get(f"/v1/runs/{run_id}/events", params={"limit": 1000}).json()["data"]
    why = [event["data"] for event in events if event["data"].get("status") == "cancelled"]
    assert {one["detail"] for one in why} == {
        "the run was rewound to step 2: its weights will differ"
    }
    assert client.get(f"/v1/runs/{run_id}").json()["status"] == "running"


def test_a_retry_from_the_start_leaves_no_figures_of_other_weights(context, client, run_id, worker):
    save(worker, 4)
    leave_adapter(worker)
    made = ask(client, run_id, target="checkpoint", step=4)
    by = Worker(context, run_id, made["job_id"])
    by.ship(scored(by, target="checkpoint", step=4))
    finish(by)
    finish(worker, JobStatus.FAILED, failure_reason="crashed", failure_detail="it fell")
    client.post(f"/v1/runs/{run_id}/retry", params={"from_start": True})
    assert client.get(f"{url_of(run_id)}/{made['id']}").json()["superseded"]
    left = [p.name for p in (context.store.root / "runs").rglob("*") if p.is_file()]
    assert not [name for name in left if name.endswith(".parquet")]


# -- with a supervisor -----------------------------------------------------------------------------

SCORE = """
    say("phase", phase="evaluating")
    task = job["task"]
    place = directory / "evaluations"
    place.mkdir()
    name = f"{task['target']}-{task['split']}.parquet"
    (place / name).write_bytes(b"PAR1")
    file = {"path": f"evaluations/{name}", "size": 4,
            "sha256": hashlib.sha256(b"PAR1").hexdigest()}
    say("evaluation", target=task["target"], step=task["step"], split=task["split"],
        template=job["template"]["name"], metrics={"f1": 1.0}, predictions=file)
"""


UNTIL_TOLD = """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(4))
    say("phase", phase="evaluating")
    say("progress", step=1, total_steps=9, epoch=0)
    while True: signal.pause()
"""


@pytest.fixture
def house(context, trained, tmp_path, monkeypatch):
    """Asks for an evaluation and gives it to a supervisor whose program is the test's."""

    def make(client, **body) -> House:
        made = ask(client, trained, **body)
        house = House(context, trained, tmp_path, monkeypatch, made["job_id"])
        house.where = f"{url_of(trained)}/{made['id']}"
        return house

    return make


def test_a_program_gets_all_that_it_needs(client, house, unlabelled_id):
    working = house(
        client,
        target="checkpoint",
        step=4,
        dataset_id=unlabelled_id,
        split="validation",
        template="hate_speech_policy",
        max_samples=5,
    )
    working.play(
        f"""
        import pyarrow.parquet
        assert job["task"] == {{
            "target": "checkpoint",
            "step": 4,
            "dataset_id": {unlabelled_id!r},
            "split": "validation",
            "template": "hate_speech_policy",
            "labels": ["hate", "normal"],
            "max_samples": 5,
            "merge": None,
        }}
        assert job["template"]["name"] == "hate_speech_policy"
        assert job["baseline_template"] is job["resume_from"] is job["completions"] is None
        assert (job["kind"], job["merged"]) == ("evaluate", None)
        names = sorted(path.name for path in (directory / job["adapter"]).iterdir())
        assert names == ["adapter_config.json", "adapter_model.safetensors"]
        for name in names:
            assert (directory / "adapter" / name).read_text() == f"{{name}} 4"
        rows = pyarrow.parquet.read_table(directory / "dataset.parquet").to_pylist()
        assert {{row["text"] for row in rows}} == {{"t0", "t1", "t2", "t3", "v", "a", "b"}}
        assert sorted(path.name for path in directory.iterdir()) == [
            "adapter", "dataset.parquet", "job.json", "training.log"
        ]
        """
        + textwrap.indent(SCORE, "    ")
    )
    assert working.job.status == "succeeded", client.get(f"{working.where}/logs").text
    assert client.get(working.where).json()["metrics"] == {"f1": 1.0}


def test_the_base_model_comes_without_an_adapter(client, house):
    working = house(client, target="base")
    working.play('assert job["adapter"] is None\nassert not (directory / "adapter").exists()')
    assert working.job.status == "succeeded"


def test_its_log_is_its_own_and_goes_on_over_attempts(client, trained, house):
    working = house(client)
    assert client.get(f"{working.where}/logs").text == ""
    working.play('log("first"); sys.exit(1)')
    assert working.job.status == "queued"
    working.play('log("second")')
    assert client.get(f"{working.where}/logs").text == "first\nsecond\n"
    assert client.get(f"{working.where}/logs", params={"tail": 1}).text == "second\n"
    assert client.get(f"/v1/runs/{trained}/logs").text == "trained\n"
    name = f"evaluations/{EVALUATE.result_id(working.job.id)}/evaluate.log"
    files = {one["path"] for one in client.get(f"/v1/runs/{trained}/artifacts").json()["data"]}
    assert files == {"adapter_config.json", "adapter_model.safetensors", "training.log", name}
    answer = client.get(f"/v1/runs/{trained}/artifacts/{name}")
    assert answer.text == "first\nsecond\n"
    assert "evaluate.log" in answer.headers["content-disposition"]


def test_too_many_rows_at_once_are_halved(client, house):
    working = house(client)
    working.play(
        'if job["eval_batch_size"] != 1: fail("out_of_memory", batch="eval")\n'
        'assert job["task"]["target"] == "adapter"'
    )
    assert (working.job.status, working.job.eval_batch_size) == ("succeeded", 1)
    assert client.get(working.where).json()["eval_batch_size"] == 1
    assert client.get(f"/v1/runs/{working.run_id}").json()["eval_batch_size"] is None


def test_a_cancel_stops_the_program(client, house):
    working = house(client)
    attempt = in_background(working.attempt(UNTIL_TOLD))
    wait_until(lambda: working.job.step == 1)
    client.post(f"{working.where}/cancel")
    attempt.join(timeout=20)
    assert working.job.status == "cancelled"


def test_a_program_that_hangs_is_killed(client, house):
    working = house(client)
    working.play(
        'say("phase", phase="evaluating")\nwhile True: signal.pause()', step_limit_seconds=0.5
    )
    assert (working.job.status, working.job.attempts) == ("queued", 1)


def test_a_worker_told_to_stop_gives_it_back_at_no_cost(client, house):
    working = house(client)
    attempt = in_background(working.attempt(UNTIL_TOLD))
    wait_until(lambda: working.job.step == 1)
    working.shutdown.request()
    attempt.join(timeout=20)
    assert (working.job.status, working.job.attempts) == ("queued", 0)


def test_a_checkpoint_that_went_meanwhile_is_said(context, client, run_id, tmp_path, monkeypatch):
    worker = Worker(context, run_id)
    save(worker, 2)
    made = ask(client, run_id, target="checkpoint", step=2)
    save(worker, 4)  # quick_test keeps one
    working = House(context, run_id, tmp_path, monkeypatch, made["job_id"])
    working.play("")
    failed = client.get(f"{url_of(run_id)}/{made['id']}").json()
    assert (failed["status"], failed["failure"]["reason"]) == ("failed", "invalid_spec")
    assert failed["failure"]["detail"] == "the checkpoint of step 2 was deleted."
    assert client.get(f"/v1/runs/{run_id}").json()["status"] == "running"


def test_an_adapter_that_is_not_what_was_stored_is_not_scored(context, client, trained, house):
    working = house(client)
    (file,) = context.store.root.rglob("1/adapter_model.safetensors")
    file.write_bytes(b"tampered")
    working.play(SCORE)
    assert (working.job.status, working.job.failure_reason) == ("failed", "internal")
    assert "adapter_model.safetensors" in working.job.failure_detail
    assert len(working.events(client, "evaluation")) == 2  # the run's own


def test_nothing_is_left_in_the_store_without_a_row(context, client, trained, house):
    working = house(client)
    working.play('log("scoring")' + textwrap.dedent(SCORE))
    assert client.get(f"{working.where}/predictions").content == b"PAR1"
    root = context.store.root
    stored = {p.relative_to(root).as_posix() for p in (root / "runs").rglob("*") if p.is_file()}
    with context.database.read() as session:
        assert stored == program_events.keys_of(session, trained)
