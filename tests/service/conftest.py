"""The API in this process on each database, and a worker's hands without a worker."""

import threading
from collections.abc import Iterator
from importlib import resources

import pytest
import uvicorn
from fastapi.dependencies import models as fastapi_models
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.context import Context
from service.settings import Settings
from tests.support.documented_answers import DocumentedAnswers
from tests.support.fake_worker import Worker
from tests.support.installation import wait_until


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave PostgreSQL to `make test-all` where a module does not say that SQL matters to it."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        database = None if callspec is None else callspec.params.get("database_url")
        if database == "postgresql" and item.get_closest_marker("both_databases") is None:
            item.add_marker(pytest.mark.extended)


@pytest.fixture(autouse=True)
def forgotten_apps() -> Iterator[None]:
    """FastAPI's caches keep the last 4,096 callables, and with those of the docs pages every app:
    ten million objects at the end, and ten seconds for a collection of garbage.
    """
    yield
    for cached in vars(fastapi_models).values():
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()


@pytest.fixture
def settings(database_url, tmp_path) -> Settings:
    # The sweep does not come round by itself here: tests call it.
    return Settings(data_dir=tmp_path / "data", database_url=database_url, sweep_seconds=3600)


@pytest.fixture(scope="session")
def documented_answers(tmp_path_factory) -> DocumentedAnswers:
    settings = Settings(data_dir=tmp_path_factory.mktemp("documented"))
    return DocumentedAnswers(create_app(settings).openapi())


@pytest.fixture
def client(settings, documented_answers) -> Iterator[TestClient]:
    """A client in whose tests every answer is one of those that the OpenAPI document has."""
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        client.event_hooks["response"].append(documented_answers)
        yield client


@pytest.fixture
def served(client) -> Iterator[str]:
    """The same application behind a real server: its address."""
    config = uvicorn.Config(
        client.app, host="127.0.0.1", port=0, lifespan="off", log_level="critical"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


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


@pytest.fixture
def worker(context, run_id) -> Worker:
    return Worker(context, run_id)
