"""Guards of jobs whose absence would look like a delay in the fault matrix."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from service.api.app import create_app
from service.artifacts import ArtifactStore
from service.domain.states import FailureReason, JobStatus
from service.queue import celery_app
from service.settings import Settings
from service.store import jobs
from service.store.database import Database
from service.store.jobs import Claim, Fenced
from service.store.tables import Job
from tests.faults.case_run import BODY, dataset

pytestmark = pytest.mark.both_databases


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, database_url: str) -> list[list[str]]:
    """What another connection saw of the jobs when each message was sent."""
    seen: list[list[str]] = []

    def notify(_app: Any, _queue: str) -> None:
        other = Database(database_url)
        with other.read() as session:
            seen.append(
                list(session.exec(select(Job.status).where(Job.status == JobStatus.QUEUED)))
            )
        other.dispose()

    monkeypatch.setattr(celery_app, "notify", notify)
    return seen


@pytest.fixture
def client(tmp_path: Path, database_url: str) -> Iterator[TestClient]:
    # The sweep does not come round by itself: it would send messages too.
    settings = Settings(data_dir=tmp_path / "data", database_url=database_url, sweep_seconds=3600)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
def post(client: TestClient) -> Callable[..., Any]:
    def ask(path: str, **fields: Any) -> Any:
        answer = client.post(path, **fields)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    return ask


@pytest.fixture
def run_id(post: Callable[..., Any]) -> str:
    dataset_id = post("/v1/datasets", data={"name": "d"}, files=dataset())["id"]
    return post("/v1/runs", json=BODY | {"dataset_id": dataset_id})["id"]


def test_a_message_is_sent_when_its_job_is_there(sent, run_id, post) -> None:
    post(f"/v1/runs/{run_id}/clone")
    post(f"/v1/runs/{run_id}/pause")
    post(f"/v1/runs/{run_id}/resume")
    # One message each for the run, its clone, and the run once it is resumed.
    assert sent == [["queued"], ["queued"] * 2, ["queued"] * 2]


@pytest.fixture
def stale(client: TestClient, run_id: str) -> tuple[Database, Claim, Job]:
    """A claim whose job another worker has by now, and that job."""
    database: Database = client.app.state.context.database
    with database.write() as session:
        job = session.exec(select(Job).where(Job.run_id == run_id)).one()
        stale = jobs.claim(session, job.id, "one", 60)
        assert stale is not None
        jobs.return_to_queue(
            session, job, 1, FailureReason.WORKER_LOST, "a test says so", free=False
        )
        assert jobs.claim(session, job.id, "another", 60) is not None
    return database, stale, job


def test_a_stale_token_renews_no_lease(stale) -> None:
    database, claim, job = stale
    with database.write() as session, pytest.raises(Fenced):
        jobs.renew(session, claim, 1e6)
    with database.read() as session:
        assert jobs.get(session, job.id).lease_expires_at == job.lease_expires_at


def test_a_stale_token_ends_no_attempt(stale) -> None:
    database, claim, job = stale
    with database.write() as session:
        ended = jobs.switch_status(session, job, JobStatus.SUCCEEDED, expected_token=claim.token)
        assert not ended
        assert jobs.get(session, job.id).status == JobStatus.RUNNING


def test_a_file_of_the_store_is_the_old_one_or_the_new_one(tmp_path, monkeypatch) -> None:
    """The log is put again and again under one key, while others read it."""
    store = ArtifactStore((tmp_path / "store").as_uri())
    source = tmp_path / "source"
    source.write_bytes(b"old")
    store.put_file(source, "a/b")

    def torn(_reader: Any, writer: Any, *_: Any) -> None:
        writer.write(b"ne")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("service.artifacts.directory.copy", torn)
    with pytest.raises(OSError, match="No space"):
        store.put_file(source, "a/b")
    assert (store.root / "a" / "b").read_bytes() == b"old"
