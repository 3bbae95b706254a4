"""Requests: ids, lines in the log, errors that nobody foresaw, clients that leave."""

import asyncio
import contextlib
import re

import pytest
from prometheus_client import generate_latest
from sqlalchemy import text

from service.api.middleware.request_log import RequestLog
from service.domain.access import Role
from service.ops.prometheus import Monitoring
from service.usecases import api_keys
from tests.support.log_lines import caught

MADE = re.compile(r"req_[0-9a-z]{26}")
# The database has no part in it.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.mark.parametrize("sane", ["a", "A.b_c-9", "x" * 64])
def test_a_sane_id_of_the_clients_is_kept(client, sane):
    assert client.get("/healthz", headers={"X-Request-ID": sane}).headers["X-Request-ID"] == sane


HOSTILE = [
    [b""],
    [b" "],
    [b"a\nb: c"],
    [b"a\r\n"],
    [b"a b"],
    [b'"a"'],
    [b"\x1b[31m"],
    ["ü".encode()],
    ["ü".encode("latin-1")],
    [b"x" * 65],
    [b"x" * 10_000],
    [b"a", b"b"],
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda values: repr(values)[:20])
def test_any_other_id_is_replaced(client, hostile):
    with caught() as lines:
        answer = client.get("/v1/runs", headers=[(b"X-Request-ID", value) for value in hostile])
    assert answer.status_code == 200
    assert MADE.fullmatch(answer.headers["X-Request-ID"])
    (line,) = lines.all("request")
    assert line["request_id"] == answer.headers["X-Request-ID"]


def test_no_two_requests_are_given_the_same_id(client):
    ids = {client.get("/healthz").headers["X-Request-ID"] for _ in range(20)}
    assert len(ids) == 20


def test_every_answer_has_the_id(client, dataset_id):
    answers = [
        client.get("/nowhere"),
        client.put("/v1/runs"),
        client.get("/v1/runs/run_none"),
        client.post("/v1/runs", content=b"{", headers={"content-type": "application/json"}),
        client.post("/v1/runs", json={"dataset_id": dataset_id, "colour": "red"}),
        client.get("/v1/runs", headers={"host": "elsewhere.example"}),
        client.get("/docs"),
        client.get("/metrics"),
    ]
    assert [answer.status_code for answer in answers] == [404, 405, 404, 400, 422, 400, 200, 200]
    assert all(MADE.fullmatch(answer.headers["X-Request-ID"]) for answer in answers)


def test_an_error_that_nobody_foresaw_is_a_problem_with_the_id_and_one_line(client, monkeypatch):
    monkeypatch.setattr("service.store.runs.list_runs", lambda *_, **__: 1 / 0)
    with caught() as lines:
        answer = client.get("/v1/runs", headers={"X-Request-ID": "mine"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["X-Request-ID"] == "mine"
    assert "mine" in answer.json()["detail"]
    assert "division" not in answer.text
    (error,) = lines.all("unexpected error")
    assert (error["level"], error["request_id"], error["route"]) == ("error", "mine", "/v1/runs")
    assert "ZeroDivisionError" in error["exception"]
    (line,) = lines.all("request")
    assert (line["status"], line["request_id"]) == (500, "mine")


def test_the_parameters_of_a_statement_that_fails_are_not_logged(client, monkeypatch):
    def broken(session, **_):
        statement = text("INSERT INTO project (id, created_at) VALUES ('default', :created_at)")
        session.execute(statement, {"created_at": "what a user " + "wrote"})

    monkeypatch.setattr("service.store.runs.list_runs", broken)
    with caught() as lines:
        assert client.get("/v1/runs").status_code == 500
    (error,) = lines.all("unexpected error")
    assert "UNIQUE constraint failed" in error["exception"]
    assert "what a user wrote" not in lines.text


def test_a_request_is_one_line_with_the_routes_template(client, run_id):
    with caught() as lines:
        client.get(f"/v1/runs/{run_id}/artifacts/no/such/file?x=secret")
        client.get("/v1/runs/%1b[31m%0a/events")
        client.get("/no/such/path")
    artifact, odd, unknown = lines.all("request")
    assert artifact["route"] == "/v1/runs/{run_id}/artifacts/{path:path}"
    assert (artifact["method"], artifact["status"], artifact["level"]) == ("GET", 422, "info")
    assert artifact["run_id"] == run_id
    assert 0 < artifact["duration_ms"] < 60_000
    assert "run_id" not in odd
    assert unknown["route"] == "other"
    assert "such" not in lines.text
    assert "secret" not in lines.text


def test_the_line_names_the_key_of_the_caller_and_never_its_token(client, context):
    api_keys.create(context.database, "first", Role.ADMIN)
    token = api_keys.create(context.database, "ci of the lab", Role.VIEWER).token
    header = {"Authorization": f"Bearer {token}"}
    with caught(level="debug") as lines:
        assert client.get("/v1/runs", headers=header).status_code == 200
        assert client.post("/v1/runs", headers=header, json={}).status_code == 403
        assert client.get("/v1/runs").status_code == 401
    named = [line.get("key") for line in lines.all("request")]
    assert named == ["ci of the lab", "ci of the lab", None]
    assert token.partition("_")[2][:20] not in lines.text


@pytest.mark.parametrize(("level", "count"), [("info", 0), ("debug", 3)])
def test_what_machines_ask_for_all_the_time_is_logged_at_debug(client, level, count):
    with caught(level=level) as lines:
        for path in ("/healthz", "/readyz", "/metrics"):
            client.get(path)
    assert len(lines.all("request")) == count


def test_what_a_request_does_on_another_thread_is_logged_with_its_id(client, dataset_id):
    """Routes that are no coroutines run in a pool of threads."""
    body = {"dataset_id": dataset_id, "preset": "quick_test", "base_model": "tiny"}
    with caught() as lines:
        made = client.post("/v1/runs", json=body, headers={"X-Request-ID": "mine"}).json()
        client.get("/v1/runs")
    (queued,) = lines.all("job queued")
    assert (queued["request_id"], queued["run_id"]) == ("mine", made["id"])
    assert [line["request_id"] == "mine" for line in lines.all("request")] == [True, False]


# -- clients that leave ----------------------------------------------------------------------


def exchange(app, *incoming, context):
    """Give `app` a request with these messages behind it, and then silence; its lines."""
    monitoring = Monitoring(context.database)
    messages = list(incoming)
    sent = []

    async def receive():
        if messages:
            return messages.pop(0)
        return await asyncio.Future()  # nothing more ever comes

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}
    with caught() as lines, contextlib.suppress(asyncio.CancelledError):
        asyncio.run(RequestLog(app, monitoring)(scope, receive, send))
    return sent, lines.all("request"), lines, generate_latest(monitoring.registry).decode()


START = {"type": "http.response.start", "status": 200, "headers": []}
STREAM = START | {"headers": [(b"content-type", b"text/event-stream; charset=utf-8")]}
LEFT = {"type": "http.disconnect"}


def test_an_event_stream_is_logged_at_its_end_and_left_out_of_durations(context):
    async def stream(_scope, receive, send):
        await send(STREAM)
        await send({"type": "http.response.body", "body": b": hello\n\n", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"

    _, (line,), _, metrics = exchange(stream, LEFT, context=context)
    assert (line["status"], line["disconnected"]) == (200, True)
    assert 'fairtune_http_requests_total{method="GET",route="other",status="200"} 1.0' in metrics
    assert "fairtune_http_request_duration_seconds_count" not in metrics


def test_a_client_that_leaves_before_the_answer_is_no_error(context):
    async def slow(_scope, receive, _send):
        assert (await receive())["type"] == "http.disconnect"

    _, (line,), lines, metrics = exchange(slow, LEFT, context=context)
    assert (line["status"], line["disconnected"], line["level"]) == (499, True, "info")
    assert 'status="499"} 1.0' in metrics
    assert lines.all("unexpected error") == []


def test_a_client_that_leaves_after_the_answer_has_left_nothing(context):
    async def quick(_scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"x"})
        assert (await receive())["type"] == "http.disconnect"

    _, (line,), _, metrics = exchange(quick, LEFT, context=context)
    assert "disconnected" not in line
    assert 'duration_seconds_count{method="GET",route="other"} 1.0' in metrics


def test_an_error_in_the_middle_of_an_answer_ends_it_without_a_second_one(context):
    async def broken(_scope, _receive, send):
        await send(START)
        raise RuntimeError

    sent, (line,), lines, _ = exchange(broken, context=context)
    assert [message["type"] for message in sent] == ["http.response.start"]
    assert line["status"] == 200
    assert len(lines.all("unexpected error")) == 1


def test_a_server_that_stops_still_logs_what_it_cuts(context):
    async def stream(_scope, _receive, send):
        await send(STREAM)
        raise asyncio.CancelledError

    _, (line,), lines, _ = exchange(stream, context=context)
    assert line["status"] == 200
    assert lines.all("unexpected error") == []
