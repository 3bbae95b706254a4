"""The middleware that asks for keys: before the body, beside the write of the last use."""

import asyncio
import threading

import pytest

from service.api.middleware.auth import Authenticate
from service.domain.access import Role
from service.domain.errors import Unavailable
from service.store.database import Database
from service.usecases import api_keys
from tests.support.api_keys import bearer, make_keys

UPLOAD_BYTES = 64 << 20


def call(app, method, path, headers, chunks=(b"",)):
    """One request by hand; returns the messages that were sent and how many chunks were read."""
    sent, left = [], list(chunks)

    async def receive():
        body = left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 5000),
    }
    asyncio.run(app(scope, receive, send))
    return sent, len(chunks) - len(left)


def upload(token=None):
    """Headers and a body in many parts."""
    boundary = "xxxx"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="train"; filename="train.jsonl"'
        "\r\n\r\n"
    )
    chunk = b"x" * (1 << 20)
    chunks = [head.encode(), *[chunk] * 64, f"\r\n--{boundary}--\r\n".encode()]
    headers = {
        "Host": "127.0.0.1",
        "Content-Type": f"multipart/form-data; boundary={boundary}",
        "Content-Length": str(sum(map(len, chunks))),
    }
    return headers | (bearer(token) if token else {}), chunks


def test_an_upload_of_nobody_known_is_refused_before_a_byte_of_it_is_read(client, context):
    tokens = make_keys(context.database)
    for token, status, must_read in (
        (None, 401, False),
        ("ft_nothing", 401, False),
        (tokens[Role.VIEWER], 403, False),
        (tokens[Role.OPERATOR], 422, True),
    ):
        headers, chunks = upload(token)
        sent, read = call(client.app, "POST", "/v1/datasets", headers, chunks)
        assert sent[0]["status"] == status
        assert (read > 0) is must_read


def answered(status=200):
    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


def test_the_write_of_the_last_use_does_not_hold_up_the_answer(context, monkeypatch):
    token = make_keys(context.database)[Role.VIEWER]
    is_answered = threading.Event()
    waited = []
    monkeypatch.setattr(api_keys, "note_use", lambda *_: waited.append(is_answered.wait(20)))

    async def app(scope, receive, send):
        await answered()(scope, receive, send)
        is_answered.set()

    call(Authenticate(app, context.database, "0.0.0.0"), "GET", "/v1/runs", bearer(token))
    assert waited == [True]


def test_a_database_that_refuses_that_write_is_left_alone_for_a_minute(context, monkeypatch):
    token = make_keys(context.database)[Role.VIEWER]
    asked = []

    def refuse(_database, key_id):
        asked.append(key_id)
        raise Unavailable("the database is read-only")

    monkeypatch.setattr(api_keys, "note_use", refuse)
    app = Authenticate(answered(), context.database, "0.0.0.0")
    for _ in range(3):
        sent, _ = call(app, "GET", "/v1/runs", bearer(token))
        assert sent[0]["status"] == 200
    assert len(asked) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_database_that_is_away_closes_the_door_and_says_so(host):
    away = Database("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    app = Authenticate(answered(), away, host)
    token = f"ft_{'0' * 26}_{'a' * 43}"
    sent, _ = call(app, "GET", "/v1/runs", bearer(token) | {"Host": "127.0.0.1"})
    assert sent[0]["status"] == 503
    sent, _ = call(app, "GET", "/healthz", {})
    assert sent[0]["status"] == 200
    away.dispose()


def test_a_server_below_a_path_guards_the_same_calls(context):
    tokens = make_keys(context.database)
    app = Authenticate(answered(), context.database, "0.0.0.0")

    async def mounted(scope, receive, send):
        await app(scope | {"root_path": "/fairtune"}, receive, send)

    for path, status in (("/fairtune/v1/keys", 403), ("/fairtune/healthz", 200)):
        sent, _ = call(mounted, "GET", path, bearer(tokens[Role.OPERATOR]))
        assert sent[0]["status"] == status


def test_below_a_path_and_under_any_host_metrics_are_known_by_their_path(context, monkeypatch):
    """What a Host header says is no part of it."""
    token = make_keys(context.database)[Role.VIEWER]
    app = Authenticate(answered(), context.database, "0.0.0.0")

    async def mounted(scope, receive, send):
        await app(scope | {"root_path": "/fairtune"}, receive, send)

    def status(path, host):
        sent, _ = call(mounted, "GET", path, bearer(token) | {"Host": host})
        return sent[0]["status"]

    def away(*_, **__):
        raise Unavailable("the database is unreachable")

    assert status("/fairtune/metrics", "x") == 200
    monkeypatch.setattr(api_keys, "authenticate", away)
    assert status("/fairtune/metrics", "x") == 200
    assert status("/fairtune/v1/runs", "x/metrics?") == 503
