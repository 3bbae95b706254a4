"""One Idempotency-Key, many requests at once: one resource, and one that says it created it."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlmodel import select

from service.queue import celery_app
from service.store.tables import Job
from tests.support.trained_runs import finish, leave_adapter

pytestmark = pytest.mark.both_databases


@pytest.fixture
def trained(run_id, worker) -> str:
    leave_adapter(worker)
    finish(worker)
    return run_id


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("evaluations", {"target": "base"}),
        ("merged", {}),
        ("predictions", {"texts": ["a"]}),
    ],
)
def test_eight_at_once_with_one_key_create_one_job(
    client, context, trained, path, body, monkeypatch
):
    messages = []
    monkeypatch.setattr(celery_app, "notify", lambda _app, queue: messages.append(queue))

    def post(_):
        return client.post(
            f"/v1/runs/{trained}/{path}", json=body, headers={"Idempotency-Key": "k"}
        )

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    with context.database.read() as session:
        queued = session.exec(select(Job.id).where(Job.status == "queued")).all()
    assert len(queued) == len(messages) == 1
