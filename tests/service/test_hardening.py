"""What the server refuses, and what it tells browsers: headers, CORS, limits, paths, settings."""

import base64
import contextlib
import hashlib
import json
import re
import resource
import socket
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import anyio
import psutil
import pytest
import structlog
from fastapi.testclient import TestClient
from pydantic import ValidationError

from service.api import server
from service.api.app import create_app
from service.api.middleware.security_headers import page_policy
from service.cli.temporary_server import free_port
from service.domain.access import Role
from service.domain.errors import RefusedToStart
from service.settings import DEVELOPMENT_PASSWORD, Settings
from service.store.database import Database
from service.usecases import api_keys
from tests.support.installation import Service, wait_until

ROWS = b'{"text": "a", "label": "hate"}\n{"text": "b", "label": "normal"}\n'
JSON = {"Content-Type": "application/json"}
# Written out: compared with the service's own constants, an empty table of headers would pass.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"


@pytest.fixture
def client_with(settings):
    """A client of a server of its own, with other settings, which is stopped after the test."""
    with contextlib.ExitStack() as running:

        def start(**fields) -> TestClient:
            app = create_app(settings.model_copy(update=fields))
            client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
            return running.enter_context(client)

        yield start


# -- headers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/static-offline-docs/swagger-ui.css", 200),
        ("GET", "/v1/runs", 200),
        ("GET", "/v1/runs/none", 404),
        ("GET", "/nothing", 404),
        ("PUT", "/v1/runs", 405),
        ("POST", "/v1/runs", 422),
        ("OPTIONS", "/v1/runs", 405),
    ],
)
def test_every_answer_keeps_browsers_from_making_more_of_it(method, path, status, client):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert answer.headers["Content-Security-Policy"] == DATA_POLICY
    kept = answer.headers.get("Cache-Control")
    assert kept == ("no-store" if path.startswith("/v1/") else None)


def test_an_error_that_nobody_foresaw_has_the_headers_too(client_with, monkeypatch):
    from service.store import runs as rows

    def broken(*_, **__) -> None:
        raise RuntimeError("the text of an error")

    monkeypatch.setattr(rows, "list_runs", broken)
    with structlog.testing.capture_logs():
        answer = client_with().get("/v1/runs")
    assert answer.status_code == 500
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "the text of an error" not in answer.text


class Scripts(HTMLParser):
    """The scripts of a page, by another reader than the one under test."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.sources: list[str] = []
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag, attrs) -> None:
        source = dict(attrs).get("src")
        self._in_script = tag == "script" and source is None
        if tag == "script" and source is not None:
            self.sources.append(source)

    def handle_endtag(self, tag) -> None:
        self._in_script = False

    def handle_data(self, data) -> None:
        if self._in_script:
            self.inline.append(data)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_pages_run_the_scripts_that_they_have_and_no_other(path, client):
    answer = client.get(path)
    policy = dict(
        part.strip().partition(" ")[::2]
        for part in answer.headers["Content-Security-Policy"].split(";")
    )
    scripts = Scripts(answer.text)
    assert scripts.sources
    assert all(source.startswith("/static-offline-docs/") for source in scripts.sources)
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts.inline
    }
    assert set(policy["script-src"].split()) == {"'self'"} | hashes
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert int(answer.headers["Content-Length"]) == len(answer.content)


def test_a_script_that_is_not_the_pages_has_no_hash():
    page = b"<script>ours()</script>"
    assert page_policy(page) != page_policy(page.replace(b"ours", b"theirs"))
    assert "sha256" not in page_policy(b"<script src='/a.js'></script>")


def test_html_that_a_run_left_is_saved_and_not_shown(client, run_id, worker):
    content = b"<script>alert(1)</script>"
    file = worker.file("page.html", content)
    worker.ship(worker.line(type="artifact", file=file))
    url = f"/v1/runs/{run_id}/artifacts/page.html"
    answer = client.get(url)
    assert answer.content == content
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["Content-Security-Policy"] == DATA_POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "private, no-cache"
    again = client.get(url, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304
    assert again.headers["Cache-Control"] == "private, no-cache"
    assert client.get(url, headers={"Range": "bytes=1-6"}).content == b"script"


# -- CORS ----------------------------------------------------------------------------------------

ORIGIN = "https://board.example.org"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, idempotency-key, content-type",
}


def test_pages_of_other_origins_are_shut_out_unless_they_are_named(client_with, client):
    assert client.get("/v1/runs", headers={"Origin": ORIGIN}).status_code == 400
    asked = client.options("/v1/runs", headers={"Origin": ORIGIN} | PREFLIGHT)
    assert "Access-Control-Allow-Origin" not in asked.headers

    named = client_with(cors_origins=[ORIGIN])
    asked = named.options("/v1/runs", headers={"Origin": ORIGIN} | PREFLIGHT)
    assert asked.status_code == 200
    assert asked.headers["Access-Control-Allow-Origin"] == ORIGIN
    allowed = asked.headers["Access-Control-Allow-Headers"].lower()
    assert {"authorization", "idempotency-key", "last-event-id", "x-request-id"} <= set(
        allowed.split(", ")
    )
    for path, status in (("/v1/runs", 200), ("/v1/runs/none", 404)):
        answer = named.get(path, headers={"Origin": ORIGIN})
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        exposed = set(answer.headers["Access-Control-Expose-Headers"].split(", "))
        assert {"Location", "X-Request-ID", "ETag", "Content-Range"} <= exposed
        assert "Access-Control-Allow-Credentials" not in answer.headers
    other = {"Origin": "https://other.example.org"}
    assert named.get("/v1/runs", headers=other).status_code == 400
    asked = named.options("/v1/runs", headers=other | PREFLIGHT)
    assert "Access-Control-Allow-Origin" not in asked.headers


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "https://*.example.org",
        "null",
        "example.org",
        "https://example.org/",
        "https://example.org/app",
        "https://example.org?x",
        "https://user@example.org",
        "https://example.org:443",
        "https://Example.org",
        "ftp://example.org",
        "https://",
        "https://example.org:port",
    ],
)
def test_what_no_browser_sends_as_an_origin_is_refused_at_the_start(origin):
    with pytest.raises(ValidationError, match="cors_origins"):
        Settings(cors_origins=[origin])


@pytest.mark.parametrize(
    "origin", ["https://example.org", "http://localhost:3000", "https://[2001:db8::1]:8443"]
)
def test_origins_come_as_a_json_list(origin, monkeypatch):
    monkeypatch.setenv("FAIRTUNE_CORS_ORIGINS", json.dumps([origin]))
    assert Settings().cors_origins == [origin]


# -- methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/healthz",
        "/readyz",
        "/static-offline-docs/swagger-ui.css",
    ],
)
def test_what_is_always_open_answers_head(path, client):
    answer = client.head(path)
    assert answer.status_code == 200
    assert answer.content == b""


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/runs", "GET, POST"),
        ("PUT", "/v1/runs/run_1", "GET, DELETE"),
        ("POST", "/v1/runs/run_1/artifacts/a", "GET, HEAD"),
        ("GET", "/v1/keys/key_1", "DELETE"),
        ("POST", "/healthz", "GET, HEAD"),
        ("POST", "/docs", "GET, HEAD"),
    ],
)
def test_a_method_that_there_is_not_is_answered_with_those_that_there_are(
    method, path, allowed, client
):
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("method", "path", "pointer"),
    [
        ("POST", "/v1/runs?dry_run=true&dry_run=false", "/query/dry_run"),
        ("GET", "/v1/runs?limit=1&limit=2", "/query/limit"),
        ("GET", "/v1/runs?tag=a&tag=a", "/query/tag"),
        ("POST", "/v1/runs/run_1/retry?from_start=false&from_start=true", "/query/from_start"),
    ],
)
def test_a_parameter_that_is_sent_twice_is_refused(method, path, pointer, client, dataset_id):
    body = (
        {"dataset_id": dataset_id, "preset": "quick_test"} if path.startswith("/v1/runs?") else None
    )
    answer = client.request(method, path, json=body if method == "POST" else None)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"pointer": pointer, "detail": "the parameter was sent twice"}
    ]
    assert client.get("/v1/runs").json()["data"] == []


def test_a_parameter_that_takes_several_values_is_sent_several_times(client, run_id):
    assert client.get(f"/v1/runs/{run_id}/metrics?name=loss&name=eval_loss").status_code == 200


# -- bodies --------------------------------------------------------------------------------------


def test_only_a_dataset_may_be_large(client_with):
    small = client_with(max_body_bytes=1000, max_upload_bytes=20_000)
    rows = ROWS * 100
    assert 1000 < len(rows) < 20_000
    made = small.post("/v1/datasets", data={"name": "d"}, files={"train": rows})
    assert made.status_code == 201
    refused = small.post("/v1/datasets", data={"name": "d"}, files={"train": rows * 4})
    assert refused.status_code == 413
    assert "FAIRTUNE_MAX_UPLOAD_BYTES" in refused.json()["detail"]
    assert refused.headers["Connection"] == "close"

    def unannounced():
        yield b'{"name": "'
        yield b"x" * 2000

    for body in (b'{"name": "' + b"x" * 2000, unannounced()):
        refused = small.post("/v1/runs", content=body, headers=JSON)
        assert refused.status_code == 413
        assert "FAIRTUNE_MAX_BODY_BYTES" in refused.json()["detail"]
    # A form is no reason to take more where none is expected.
    refused = small.post("/v1/runs", files={"train": rows})
    assert refused.status_code == 413
    assert small.post("/v1/runs/none/cancel", content=b"x" * 2000).status_code == 413


def test_a_body_that_nobody_reads_is_not_refused_for_its_size(client_with):
    """Who has no key learns that alone; here the path does not exist."""
    small = client_with(max_body_bytes=10)
    answer = small.post("/v1/nothing", content=b"x" * 100)
    assert answer.status_code == 404
    assert answer.headers["Connection"] == "close"
    assert "Connection" not in small.get("/v1/runs").headers


@pytest.mark.parametrize("depth", [50, 300, 900, 990, 100_000])
def test_json_that_is_nested_deeply_is_the_clients_fault(depth, client, run_id):
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        refuses(client, run_id, opening * depth + "1" + closing * depth)


def refuses(client, run_id, nested) -> None:
    for path in ("/v1/runs", f"/v1/runs/{run_id}/clone", "/v1/keys"):
        for body in (nested, f'{{"tags": {nested}}}', f'{{"lora": {{"r": {nested}}}}}'):
            answer = client.post(path, content=body, headers=JSON)
            assert answer.status_code in (400, 422), (path, body[:20])
    rows = b'{"text": "a", "label": "hate", "more": ' + nested.encode() + b"}\n"
    for form in ({"mapping": nested}, {"format": "unified"}, {}):
        answer = client.post("/v1/datasets", data={"name": "d"} | form, files={"train": rows})
        assert answer.status_code in (400, 422), form


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"dataset_id": "a", "seed": 1, "seed": 2}', "'seed' twice"),
        (b'{"dataset_id": "a", "lora": {"r": 1, "r": 1}}', "'r' twice"),
        (b'{"dataset_id": "\xff"}', "UTF-8"),
        (b"[" * 100_000, "too deeply"),
        (b'{"dataset_id": ', "not JSON"),
    ],
)
def test_a_body_that_could_be_read_in_two_ways_is_refused(body, said, client):
    answer = client.post("/v1/runs", content=body, headers=JSON)
    assert answer.status_code == 400
    assert said in answer.json()["detail"]


# -- paths ---------------------------------------------------------------------------------------

SECRET = "only somebody who left the table of files could read this"
HOSTILE = [
    "..",
    ".",
    "../../secret.txt",
    "%2e%2e",
    "%2e%2e%2f%2e%2e%2fsecret.txt",
    "..%2fsecret.txt",
    "%252e%252e%252fsecret.txt",
    "..%5c..%5csecret.txt",
    "secret.txt",
    "secret.txt%00.json",
    "%00",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "///etc/passwd",
    "~root",
    "C:%5Cwindows",
    "%ff%fe",
    "%ed%a0%80",
    "a%0d%0aX-Header:%201",
    "x" * 8000,
    "1e400",
    "9" * 400,
]


def ask(client, method, raw_path):
    """The answer to a request whose path no client library has put in order."""
    path, _, query = raw_path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),  # as uvicorn does
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    sent: list[dict] = []

    to_come = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict:
        return to_come.pop() if to_come else await anyio.sleep_forever()

    async def send(message) -> None:
        sent.append(message)

    client.portal.call(client.app, scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


@pytest.fixture
def secrets(settings, client):
    """Files beside the store and in it, that no row names."""
    for folder in (settings.data_dir, settings.data_dir / "artifacts"):
        (folder / "secret.txt").write_text(SECRET)


def hostile_calls(document, run_id):
    """Every call of the OpenAPI document, with each of its path's parameters hostile in turn."""
    for path, operations in document["paths"].items():
        for parameter in re.findall(r"{(\w+)}", path):
            for hostile in HOSTILE:
                filled = path.replace(f"{{{parameter}}}", hostile)
                filled = filled.replace("{run_id}", run_id).replace("{step}", "1")
                filled = re.sub(r"{\w+}", "x", filled)
                for method in {*operations, "head"}:
                    yield method.upper(), filled


def test_no_part_of_a_path_becomes_a_path_of_the_machine(client, run_id, secrets):
    calls = list(hostile_calls(client.app.openapi(), run_id))
    assert {path for _, path in calls if path.startswith(f"/v1/runs/{run_id}/artifacts/")}
    calls += [("GET", f"/static-offline-docs/{hostile}") for hostile in HOSTILE]
    calls += [("GET", f"/{hostile}") for hostile in HOSTILE]
    with structlog.testing.capture_logs():
        for method, path in calls:
            status, body = ask(client, method, path)
            assert 300 <= status < 500, (method, path)
            assert SECRET.encode() not in body, path
            assert b"root:" not in body, path


def test_no_value_of_a_query_becomes_a_path_of_the_machine(client, run_id, worker, secrets):
    file = worker.file("checkpoints/checkpoint-1/adapter.bin", b"weights") | {"path": "adapter.bin"}
    worker.ship(
        worker.line(
            type="checkpoint",
            step=1,
            epoch=1.0,
            path="checkpoints/checkpoint-1",
            files=[file],
            metrics={},
            best_step=1,
        )
    )
    download = f"/v1/runs/{run_id}/checkpoints/1/download?path="
    assert ask(client, "GET", download + "adapter.bin") == (200, b"weights")
    for hostile in [*HOSTILE, "adapter.bin%00", "./adapter.bin", "x/../adapter.bin"]:
        for path in (
            download + hostile,
            f"/v1/runs/{run_id}/metrics?name={hostile}",
            f"/v1/runs?after={hostile}&name={hostile}&tag={hostile}&dataset_id={hostile}",
        ):
            status, body = ask(client, "GET", path)
            assert status < 500, path
            assert status == (422 if "%00" in path else 404) or "download" not in path, path
            assert SECRET.encode() not in body


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("../../evil", 201),
        ("/tmp/evil", 201),
        ("evil\\b", 201),
        ("evil" * 1000, 201),
        ("evil\0l", 201),
        ("", 422),
    ],
)
def test_the_name_of_an_uploaded_file_is_not_used(name, status, client, settings):
    folder = settings.data_dir.parent
    before = set(folder.rglob("*"))
    files = {"train": (name, ROWS, "text/plain")}
    assert client.post("/v1/datasets", data={"name": "d"}, files=files).status_code == status
    added = {path for path in set(folder.rglob("*")) - before if path.is_file()}
    stored = [path for path in added if path.is_relative_to(settings.data_dir / "artifacts")]
    assert len(stored) == (status == 201)  # under its content hash
    assert not any("evil" in path.name for path in added)
    assert not Path("/tmp/evil").exists()
    assert not (folder.parent / "evil").exists()


# -- a real server -------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path, migrated_sqlite):
    database = tmp_path / "fairtune.db"
    database.write_bytes(migrated_sqlite.read_bytes())
    settings = Settings(
        data_dir=tmp_path / "data",
        database_url=f"sqlite:///{database}",
        port=free_port(),
        request_timeout_seconds=1,
    )
    made = Service(settings, tmp_path / "service.log")
    made.start("api")
    yield made.ready()
    made.stop()


class Wire:
    """A connection on which a test decides when what is sent."""

    def __init__(self, service) -> None:
        address = (service.settings.host, service.settings.port)
        self._socket = socket.create_connection(address, timeout=30)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def rest(self) -> bytes:
        """Everything until the server closes the connection; with a reset where it has not read
        all that was sent.
        """
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := self._socket.recv(65536):
                found += chunk
        return found

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_) -> None:
        self._socket.close()


HEAD = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"


def test_a_client_that_dawdles_is_hung_up_on(served):
    with Wire(served) as silent:
        assert silent.rest() == b""
    with Wire(served) as wire:
        wire.send(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        assert wire.rest() == b""
    with Wire(served) as wire:  # the second request of a connection, too
        wire.send(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /healthz HTTP")
        answer = wire.rest()
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.count(b"HTTP/1.1") == 1
    with Wire(served) as wire:
        wire.send(HEAD % (b"/v1/runs", b"application/json", 100) + b'{"name"')
        answer = wire.rest()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer
    assert b"urn:fairtune:timeout" in answer
    assert b"FAIRTUNE_REQUEST_TIMEOUT_SECONDS" in answer


@pytest.mark.parametrize("path", [b"/v1/runs", b"/healthz", b"/v1/datasets"])
def test_a_body_with_two_lengths_is_refused_and_the_connection_closed(served, path):
    """Its end depends on the parser: what one takes for the body is a request to another."""
    chunked = b"Transfer-Encoding: chunked\r\n"
    smuggled = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    for length in (b"Content-Length: 5\r\n", b"content-length: 0\r\n"):
        with Wire(served) as wire:
            wire.send(b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\n" % path + length + chunked)
            wire.send(b"\r\n" + smuggled)
            answer = wire.rest()
        assert answer.startswith(b"HTTP/1.1 400"), answer
        assert answer.count(b"HTTP/1.1") == 1
        assert b"connection: close" in answer.lower()
        assert b"Content-Length or Transfer-Encoding" in answer


def test_drops_that_keep_coming_do_not_hold_a_request_open(served):
    """Of an upload each part counts; of any other body, and of the head, the whole."""
    import threading

    def drip(wire, stop) -> None:
        with contextlib.suppress(OSError), wire:  # the server closes it
            while not stop.wait(0.2):
                wire.send(b"x")

    for start in (
        b"GET /healthz HTTP/1.1\r\nX-Slow: ",
        HEAD % (b"/v1/runs", b"application/json", 10_000),
    ):
        stop = threading.Event()
        wire = Wire(served)
        wire.send(start)
        dripping = threading.Thread(target=drip, args=[wire, stop])
        dripping.start()
        answer = wire.rest()
        stop.set()
        dripping.join()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408")


def test_a_slow_upload_is_taken_as_long_as_it_comes(served):
    import time

    body = (
        b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nd\r\n'
        b'--b\r\nContent-Disposition: form-data; name="train"; filename="t"\r\n\r\n'
        + ROWS
        + b"\r\n--b--\r\n"
    )
    with Wire(served) as wire:
        wire.send(HEAD % (b"/v1/datasets", b"multipart/form-data; boundary=b", len(body)))
        for start in range(0, len(body), 40):
            time.sleep(0.3)  # what is tested: in all more than the limit
            wire.send(body[start : start + 40])
        wire.send(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert wire.rest().startswith(b"HTTP/1.1 201")


def test_a_head_of_more_than_16_kilobytes_is_refused(served):
    with Wire(served) as wire:
        wire.send(b"GET /v1/runs?" + b"a" * 10_000)
        wire.send(b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert wire.rest().startswith(b"HTTP/1.1 422")
    with Wire(served) as wire:
        wire.send(b"GET /v1/runs?" + b"a" * 20_000)
        assert wire.rest().startswith(b"HTTP/1.1 400")


def test_memory_does_not_grow_with_an_upload(served):
    """40 MB: what the server holds of it lies on the disk, until it is refused for its format."""

    def peak() -> int:
        lines = served.parts[0].pid, "VmHWM"
        with open(f"/proc/{lines[0]}/status") as status:  # noqa: PTH123 - not a file
            return next(int(line.split()[1]) for line in status if line.startswith(lines[1]))

    if not psutil.LINUX:
        pytest.skip("only Linux tells the peak of memory that a process has held")

    def upload(size) -> None:
        data = {"name": "d", "format": "of my own"}
        answer = served.client.post("/v1/datasets", data=data, files={"train": b"x" * size})
        assert answer.status_code == 422

    upload(2_000_000)
    before = peak()
    upload(40_000_000)
    assert peak() - before < 10_000  # kilobytes
    wait_until(lambda: served.client.get("/readyz").status_code == 200)


def test_an_upgrade_that_is_asked_for_is_no_news(served):
    with Wire(served) as wire:
        wire.send(
            b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\n\r\n"
        )
        assert wire.rest().startswith(b"HTTP/1.1 200")
    log = served.log.read_text().lower()
    assert "websocket" not in log
    assert "upgrade" not in log


@pytest.mark.parametrize(("files", "connections"), [(1024, 512), (1_048_576, 2000), (-1, 2000)])
def test_connections_leave_files_for_everything_else(files, connections, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert server._max_connections() == connections


# -- production ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://fairtune:{DEVELOPMENT_PASSWORD}@db/fairtune",
        f"postgresql://fairtune:{DEVELOPMENT_PASSWORD.replace('-', '%2D')}@db/fairtune",
        f"postgresql://fairtune@db/fairtune?password={DEVELOPMENT_PASSWORD}",
    ],
)
def test_production_refuses_the_password_that_everybody_knows(url):
    assert Settings(database_url=url).environment == "development"
    with pytest.raises(
        ValidationError, match="FAIRTUNE_DATABASE_URL has the public development password"
    ):
        Settings(database_url=url, environment="production")
    with pytest.raises(ValidationError, match="FAIRTUNE_BROKER_URL"):
        Settings(broker_url=f"redis://:{DEVELOPMENT_PASSWORD}@q/0", environment="production")
    own = url.replace(DEVELOPMENT_PASSWORD, "another").replace(
        DEVELOPMENT_PASSWORD.replace("-", "%2D"), "another"
    )
    Settings(database_url=own, environment="production")


def test_production_wants_a_key_on_loopback_too(database_url):
    database = Database(database_url)
    api_keys.check_guarded(database, Settings())
    production = Settings(environment="production")
    with pytest.raises(RefusedToStart, match="fairtune keys create"):
        api_keys.check_guarded(database, production)
    api_keys.create(database, "first", Role.ADMIN)
    api_keys.check_guarded(database, production)
    database.dispose()


@pytest.mark.parametrize("password", ["p@ss", "p/w", "p#w", "p?w", "p:w@x"])
def test_a_password_that_would_become_a_part_of_the_address_is_refused(password):
    for field, url in (
        ("database_url", f"postgresql://u:{password}@db/fairtune"),
        ("broker_url", f"redis://:{password}@q/0"),
    ):
        with pytest.raises(ValidationError, match="write %") as refused:
            Settings(**{field: url})
        assert password not in refused.value.errors()[0]["msg"]
