"""The API in this process on each database, and a worker's hands without a worker."""

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.context import Context
from service.domain.events import program_event
from service.settings import Settings
from service.store import jobs, shipping
from service.store.jobs import Claim


@pytest.fixture
def settings(database_url, tmp_path) -> Settings:
    # The sweep does not come round by itself here: tests call it.
    return Settings(data_dir=tmp_path / "data", database_url=database_url, sweep_seconds=3600)


@pytest.fixture
def client(settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture
def context(client) -> Context:
    return client.app.state.context


@pytest.fixture(scope="session")
def sample() -> dict[str, bytes]:
    folder = resources.files("service.datasets.sample")
    return {
        split: (folder / f"{split}.jsonl").read_bytes() for split in ("train", "validation", "test")
    }


@pytest.fixture
def dataset_id(client, sample) -> str:
    answer = client.post("/v1/datasets", data={"name": "sample"}, files=sample)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


@pytest.fixture
def run_id(client, dataset_id) -> str:
    body = {"dataset_id": dataset_id, "preset": "quick_test", "base_model": "tiny"}
    answer = client.post("/v1/runs", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


class Worker:
    """Claims a job and ships what a program would say."""

    def __init__(self, context: Context, run_id: str) -> None:
        self.context = context
        self.seq = 0
        with context.database.read() as session:
            from service.store.runs import get_run

            self.job_id = get_run(session, run_id)[1].id
        claim = self.claim()
        assert claim is not None
        self.current: Claim = claim

    def claim(self, owner: str = "a worker", lease: float = 60) -> Claim | None:
        with self.context.database.write() as session:
            return jobs.claim(session, self.job_id, owner, lease)

    def line(self, **fields: Any) -> Any:
        self.seq += 1
        return program_event.validate_python(
            {"seq": self.seq, "time": datetime.now(UTC).isoformat(), **fields}
        )

    def file(self, path: str, content: bytes) -> dict[str, Any]:
        """Put a file where a supervisor would; return its entry."""
        import hashlib
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "file"
            source.write_bytes(content)
            key = f"{shipping.prefix_of(self.current)}/{path}"
            self.context.store.put_file(source, key)
        return {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def ship(self, *lines: Any, claim: Claim | None = None) -> list[Any]:
        with self.context.database.write() as session:
            return shipping.ship(session, claim or self.current, lines)


@pytest.fixture
def worker(context, run_id) -> Worker:
    return Worker(context, run_id)
