"""A run's events as a stream: what comes, until when, and for whom."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.api.responses import event_stream
from service.domain.access import Role
from service.domain.errors import Unavailable
from service.domain.states import JobStatus
from service.store import jobs
from service.usecases import api_keys
from tests.support.api_keys import bearer, let_expire
from tests.support.installation import wait_until


def finish(context, worker):
    with context.database.write() as session:
        job = jobs.get(session, worker.job_id)
        to = JobStatus.SUCCEEDED
        assert jobs.switch_status(session, job, to, expected_token=worker.current.token)


def events_of(client, run_id, last=None):
    headers = {"accept": "text/event-stream"} | ({"Last-Event-ID": str(last)} if last else {})
    with client.stream("GET", f"/v1/runs/{run_id}/events", headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        return [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]


def test_a_stream_ends_with_the_final_status_and_resumes(context, client, run_id, worker):
    worker.ship(worker.line(type="log", message="a"))
    finish(context, worker)
    whole = events_of(client, run_id)
    assert [event["id"] for event in whole] == [1, 2, 3, 4]
    assert whole[-1]["data"]["status"] == "succeeded"
    assert [event["id"] for event in events_of(client, run_id, last=2)] == [3, 4]
    assert events_of(client, run_id, last=4) == []


@pytest.mark.parametrize("ends", ["revoked", "expired", "first key made"])
def test_a_stream_ends_with_the_key_that_opened_it(ends, context, client, run_id, monkeypatch):
    monkeypatch.setattr(event_stream, "PING_SECONDS", 0.1)
    admin = (
        "" if ends == "first key made" else api_keys.create(context.database, "a", Role.ADMIN).token
    )
    if admin:
        token = api_keys.create(context.database, "b", Role.VIEWER).token
        client.headers.update(bearer(token))
    feed = client.app.state.feed
    with ThreadPoolExecutor(1) as pool:
        listener = pool.submit(events_of, client, run_id)
        try:
            wait_until(lambda: feed._listeners, 20)
            if ends == "revoked":
                api_keys.revoke_named(context.database, "b")
            elif ends == "expired":
                let_expire(context.database, "b")
            else:
                admin = api_keys.create(context.database, "a", Role.ADMIN).token
            events = listener.result(timeout=20)
        finally:  # or it would go on
            client.post(f"/v1/runs/{run_id}/cancel", headers=bearer(admin))
    assert [event["data"]["status"] for event in events] == ["queued"]


def test_a_stream_outlives_a_database_that_cannot_tell(context, client, run_id, monkeypatch):
    asked = []

    def away(*_) -> bool:
        asked.append(None)
        raise Unavailable("the database cannot be reached")

    monkeypatch.setattr(event_stream, "PING_SECONDS", 0.1)
    monkeypatch.setattr(api_keys, "is_let_in", away)
    with ThreadPoolExecutor(1) as pool:
        listener = pool.submit(events_of, client, run_id)
        wait_until(lambda: len(asked) > 2, 20)
        client.post(f"/v1/runs/{run_id}/cancel")
        events = listener.result(timeout=20)
    assert [event["data"]["status"] for event in events] == ["queued", "cancelled"]


def test_a_stream_follows_what_comes(context, client, run_id, worker):
    with ThreadPoolExecutor(3) as pool:
        listeners = [pool.submit(events_of, client, run_id) for _ in range(3)]
        for number in range(50):
            worker.ship(worker.line(type="log", message=str(number)))
        finish(context, worker)
        for listener in listeners:
            events = listener.result(timeout=30)
            assert [event["id"] for event in events] == list(range(1, len(events) + 1))
            logs = [event["data"]["message"] for event in events if event["type"] == "log"]
            assert logs == [str(number) for number in range(50)]
            assert events[-1]["data"]["status"] == "succeeded"


def test_a_stream_ends_when_its_run_is_deleted(context, client, run_id, monkeypatch):
    """The event that ended it may be gone before it was read."""
    monkeypatch.setattr(event_stream, "PING_SECONDS", 0.1)
    feed = client.app.state.feed
    with ThreadPoolExecutor(1) as pool:
        listener = pool.submit(events_of, client, run_id)
        wait_until(lambda: feed._listeners, 20)
        assert client.delete(f"/v1/runs/{run_id}").status_code == 204
        events = listener.result(timeout=20)
    assert [event["data"]["status"] for event in events] in (["queued"], ["queued", "cancelled"])


def test_many_streams_of_a_key_share_its_check(context, client, run_id, monkeypatch):
    calls = []

    def has_access(*_) -> bool:
        calls.append(None)
        return True

    monkeypatch.setattr(event_stream, "PING_SECONDS", 2.0)
    monkeypatch.setattr(api_keys, "is_let_in", has_access)
    feed = client.app.state.feed
    with ThreadPoolExecutor(20) as pool:
        listeners = [pool.submit(events_of, client, run_id) for _ in range(20)]
        wait_until(lambda: len(feed._listeners.get(run_id, [])) == 20, 20)
        wait_until(lambda: calls, 20)
        calls.clear()
        began = time.monotonic()
        wait_until(lambda: len(calls) >= 3, 20)
        elapsed = time.monotonic() - began
        client.post(f"/v1/runs/{run_id}/cancel")
        for listener in listeners:
            listener.result(timeout=20)
    # Alone, twenty streams would check 12 times a second.
    assert elapsed > 0.6
