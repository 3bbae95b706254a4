"""Merges as a user asks for them and a worker makes them, said by hand."""

from tests.support.fake_worker import Worker
from tests.support.trained_runs import finish

COMPARED = {
    "rows": 64,
    "split": "validation",
    "labels_changed": 1,
    "max_difference": 0.25,
    "mean_difference": 0.125,
}
MODEL = {
    "README.md": b"# card",
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"one" * 300,
    "model-00002-of-00002.safetensors": b"two",
}


def url_of(run_id):
    return f"/v1/runs/{run_id}/merged"


def ask(client, run_id, status=201, **body):
    answer = client.post(url_of(run_id), json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def merged(worker, contents=MODEL, **fields):
    """What a program says when it has merged; the files are in the store."""
    files = [
        worker.file(f"merged/{name}", content) | {"path": name}
        for name, content in contents.items()
    ]
    told = {"path": "merged", "files": files, "comparison": COMPARED} | fields
    return worker.line(type="merged", **told)


def publish(context, client, run_id, contents=MODEL, **body):
    """A merge from asking to success."""
    made = ask(client, run_id, **body)
    worker = Worker(context, run_id, made["job_id"])
    worker.ship(merged(worker, contents))
    finish(worker)
    return made["id"]
