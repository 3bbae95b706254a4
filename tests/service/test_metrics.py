"""GET /metrics: what Prometheus reads, against what has happened."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine, text
from sqlmodel import col, update

from service import __version__
from service.api.app import create_app
from service.api.middleware import auth
from service.api.middleware.auth import Authenticate
from service.domain.access import Role
from service.domain.job_kinds import KINDS
from service.domain.states import FailureReason, JobStatus
from service.queue.sweep import Sweeper
from service.store import jobs
from service.store.database import db_now
from service.store.runs import get_run
from service.store.tables import Job
from service.usecases import api_keys


def scrape(client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name and labels; none may come twice."""
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def value(samples, name: str, **labels: str) -> float | None:
    return samples.get((f"fairtune_{name}", frozenset(labels.items())))


def test_what_is_there_before_anything_happened(client):
    samples = scrape(client)
    assert value(samples, "build_info", version=__version__) == 1
    assert value(samples, "database_up") == 1
    assert value(samples, "queue_depth") == 0
    assert value(samples, "queue_oldest_age_seconds") == 0
    assert value(samples, "job_takeovers_total") == 0
    for kind in KINDS:
        for status in JobStatus:
            assert value(samples, "jobs", kind=kind, status=status) == 0
    names = {name for name, _ in samples}
    assert {"process_resident_memory_bytes", "python_info"} <= names
    assert not [name for name in names if name.endswith("_created")]


def test_open_metrics_come_to_whom_asks_for_them(client):
    accept = {"Accept": "application/openmetrics-text; version=1.0.0, text/plain;q=0.5"}
    answer = client.get("/metrics", headers=accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in open_metrics(answer.text)}
    assert {"fairtune_jobs", "fairtune_http_requests"} <= names


def test_requests_are_counted_by_method_template_and_status(client, run_id):
    before = scrape(client)
    for _ in range(3):
        client.get(f"/v1/runs/{run_id}")
    client.get("/v1/runs/run_none")
    client.post("/v1/runs", json={})
    after = scrape(client)

    def rise(name, **labels):
        return (value(after, name, **labels) or 0) - (value(before, name, **labels) or 0)

    one = {"method": "GET", "route": "/v1/runs/{run_id}"}
    assert rise("http_requests_total", **one, status="200") == 3
    assert rise("http_requests_total", **one, status="404") == 1
    assert rise("http_requests_total", method="POST", route="/v1/runs", status="422") == 1
    assert rise("http_request_duration_seconds_count", **one) == 4
    assert 0 < rise("http_request_duration_seconds_sum", **one) < 60
    assert rise("http_request_duration_seconds_bucket", **one, le="+Inf") == 4


def test_what_clients_make_up_makes_no_series(client):
    for number in range(5):
        client.get(f"/no/such/path/{number}")
        client.request(f"MADEUP{number}", "/v1/runs")
    samples = scrape(client)
    labels = {"method": "GET", "route": "other", "status": "404"}
    assert value(samples, "http_requests_total", **labels) == 5
    labels = {"method": "other", "route": "/v1/runs", "status": "405"}
    assert value(samples, "http_requests_total", **labels) == 5
    assert "MADEUP" not in str(samples)


def test_two_applications_in_one_process_count_for_themselves(settings):
    with (
        TestClient(create_app(settings), base_url="http://127.0.0.1") as first,
        TestClient(create_app(settings), base_url="http://127.0.0.1") as second,
    ):
        first.get("/healthz")
        labels = {"method": "GET", "route": "/healthz", "status": "200"}
        assert value(scrape(first), "http_requests_total", **labels) == 1
        assert value(scrape(second), "http_requests_total", **labels) is None


def test_the_queue_has_a_depth_and_an_age_by_the_databases_clock(client, context, run_id):
    clone = client.post(f"/v1/runs/{run_id}/clone", json={}).json()["id"]
    with context.database.write() as session:
        session.execute(update(Job).where(col(Job.run_id) == run_id).values(queued_at=db_now(-100)))
    samples = scrape(client)
    assert value(samples, "jobs", kind="train", status="queued") == 2
    assert value(samples, "queue_depth") == 2
    age = value(samples, "queue_oldest_age_seconds")
    assert age is not None
    assert 100 <= age < 160
    for one in (run_id, clone):
        client.post(f"/v1/runs/{one}/cancel")
    samples = scrape(client)
    assert value(samples, "jobs", kind="train", status="queued") == 0
    assert value(samples, "jobs", kind="train", status="cancelled") == 2
    assert (value(samples, "queue_depth"), value(samples, "queue_oldest_age_seconds")) == (0, 0)


def test_a_running_job_shows_its_speed_and_its_gpus_memory(client, run_id, worker):
    def progress(**fields):
        worker.ship(worker.line(type="progress", step=1, total_steps=9, epoch=0, **fields))

    names = {"run_id": run_id, "job_id": worker.job_id}
    progress()
    samples = scrape(client)
    assert value(samples, "training_samples_per_second", run_id=run_id) is None
    assert value(samples, "job_gpu_memory_bytes", **names) is None  # a CPU has none
    progress(samples_per_second=12.5, gpu_memory_bytes=2 * 80_000_000_000)
    # After a lack of memory a program is started again, and begins at nothing.
    progress(samples_per_second=10.5, gpu_memory_bytes=1000)
    samples = scrape(client)
    assert value(samples, "training_samples_per_second", run_id=run_id) == 10.5
    assert value(samples, "job_gpu_memory_bytes", **names) == 160_000_000_000
    assert value(samples, "jobs", kind="train", status="running") == 1
    with worker.context.database.write() as session:
        jobs.switch_status(session, get_run(session, run_id)[1], JobStatus.SUCCEEDED)
    assert not [key for key in scrape(client) if ("run_id", run_id) in key[1]]


def test_the_memory_of_an_earlier_attempt_is_forgotten(client, context, run_id, worker):
    line = {"type": "progress", "step": 1, "total_steps": 9, "epoch": 0}
    worker.ship(worker.line(**line, gpu_memory_bytes=1000))
    with context.database.write() as session:
        job = jobs.lock_for_worker(session, worker.current)
        jobs.switch_status(session, job, JobStatus.QUEUED)
    worker.claim()
    with context.database.read() as session:
        assert get_run(session, run_id)[1].gpu_memory_bytes is None


def test_only_what_the_sweep_takes_back_is_a_takeover(client, context, run_id, worker):
    with context.database.write() as session:
        job = jobs.lock_for_worker(session, worker.current)
        token, crashed = worker.current.token, FailureReason.CRASHED
        assert jobs.return_to_queue(session, job, token, crashed, "x", free=False)
    assert value(scrape(client), "job_takeovers_total") == 0
    sweeper = Sweeper(context.settings, context.database, context.store, context.celery)
    sweeper._renewal_seconds = 0
    worker.claim(lease=-1)
    sweeper.sweep()
    assert value(scrape(client), "job_takeovers_total") == 1
    sweeper.sweep()
    assert value(scrape(client), "job_takeovers_total") == 1
    with context.database.read() as session:
        assert get_run(session, run_id)[1].takeovers == 1


@pytest.fixture
def lose_database(context) -> Callable[[], None]:
    """Nobody listens any more where the database was."""

    def lose() -> None:
        nowhere = create_engine("postgresql+psycopg://u:geheim@127.0.0.1:1/x")
        context.database._reader = context.database._writer = nowhere

    return lose


def test_while_the_database_is_away_the_rest_is_told(client, context, lose_database):
    token = api_keys.create(context.database, "prometheus", Role.ADMIN).token
    client.headers["Authorization"] = f"Bearer {token}"
    client.get("/healthz")
    assert value(scrape(client), "database_up") == 1
    lose_database()
    samples = scrape(client)
    assert value(samples, "database_up") == 0
    labels = {"method": "GET", "route": "/healthz", "status": "200"}
    assert value(samples, "http_requests_total", **labels) == 1
    assert not [key for key in samples if key[0].startswith(("fairtune_job", "fairtune_queue"))]
    assert client.get("/v1/runs").status_code == 503


def test_while_the_database_is_away_only_a_key_that_read_them_before_reads_metrics(
    client, context, lose_database
):
    def status(key: str, path: str = "/metrics") -> int:
        return client.get(path, headers={"Authorization": f"Bearer {key}"}).status_code

    made = [api_keys.create(context.database, name, Role.ADMIN) for name in ("a", "b", "c")]
    used, unused, revoked = [one.token for one in made]
    assert (status(used), status(revoked)) == (200, 200)
    api_keys.revoke(context.database, made[2].key.row.id)
    assert (status(revoked), client.get("/metrics").status_code) == (401, 401)
    lose_database()
    assert [status(one) for one in (used, used, unused, revoked)] == [200, 200, 503, 503]
    assert (client.get("/metrics").status_code, status(used, "/v1/runs")) == (503, 503)


def test_open_access_does_not_outlast_the_first_key_while_the_database_is_away(
    client, context, lose_database
):
    assert client.get("/metrics").status_code == 200
    junk = {"Authorization": "Bearer junk"}
    assert client.get("/metrics", headers=junk).status_code == 200
    api_keys.create(context.database, "me", Role.ADMIN)  # by another process: this one is not told
    lose_database()
    assert client.get("/metrics").status_code == 503
    assert client.get("/metrics", headers=junk).status_code == 503


def test_what_is_remembered_of_a_key_is_forgotten_after_minutes(context, lose_database):
    async def answered(_scope, _receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    guard = Authenticate(answered, context.database, "127.0.0.1")
    client = TestClient(guard, base_url="http://127.0.0.1")
    for number in range(20):
        junk = {"Authorization": f"Bearer junk{number}"}
        assert client.get("/metrics", headers=junk).status_code == 200
    token = api_keys.create(context.database, "me", Role.ADMIN).token
    client.headers["Authorization"] = f"Bearer {token}"
    assert client.get("/metrics").status_code == 200
    assert len(guard._scrapers) == 1
    lose_database()
    assert client.get("/metrics").status_code == 200
    guard._scrapers = {
        digest: (caller, since - auth.REMEMBERED_SECONDS - 1)
        for digest, (caller, since) in guard._scrapers.items()
    }
    assert client.get("/metrics").status_code == 503


def test_without_its_tables_the_database_is_not_up_and_the_rest_is_told(client, context):
    client.get("/healthz")
    with context.database.write() as session:
        session.execute(text("ALTER TABLE job RENAME TO elsewhere"))
    try:
        samples = scrape(client)
    finally:
        with context.database.write() as session:
            session.execute(text("ALTER TABLE elsewhere RENAME TO job"))
    assert value(samples, "database_up") == 0
    labels = {"method": "GET", "route": "/healthz", "status": "200"}
    assert value(samples, "http_requests_total", **labels) == 1
    assert not [key for key in samples if key[0].startswith(("fairtune_job", "fairtune_queue"))]
