"""The service as its own processes: API and worker, on both settings."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.cli.temporary_server import free_port
from service.settings import Settings
from service.store import migrate
from service.store.database import Database
from tests.support.installation import Service
from tests.support.tiny_models import make_models


@pytest.fixture(scope="session")
def tiny_models_dir(tmp_path_factory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def make_settings(tmp_path, tiny_models_dir, request) -> Callable[..., Settings]:
    """Settings of an installation; `servers`: PostgreSQL and Redis, else SQLite and files."""

    def make(*, servers: bool, **fields: Any) -> Settings:
        urls: dict[str, str] = {}
        if servers:
            postgres = request.getfixturevalue("postgres")
            name = f"e2e_{tmp_path.name.lower().replace('-', '_').strip('_[]')}"
            postgres.psql(f'CREATE DATABASE "{name}";')
            urls = {
                "database_url": postgres.get_uri(name, driver="psycopg"),
                "broker_url": request.getfixturevalue("redis_url"),
            }
        settings = Settings(
            data_dir=tmp_path / "data",
            models_dir=tiny_models_dir,
            port=free_port(),
            poll_seconds=0.1,
            **urls,
            **fields,
        )
        database = Database(settings.database_url)
        migrate.upgrade(database)
        database.dispose()
        return settings

    return make


@pytest.fixture(params=["files", "servers"])
def service(request, make_settings, tmp_path) -> Iterator[Service]:
    """API and one worker: on SQLite and files, and on PostgreSQL and Redis with logs as JSON."""
    servers = request.param == "servers"
    settings = make_settings(servers=servers, log_format="json" if servers else "console")
    running = Service(settings, tmp_path / "service.log")
    try:
        running.start("api")
        running.start("worker")
        yield running.ready()
    finally:
        running.stop()
        shutil.rmtree(running.settings.jobs_dir, ignore_errors=True)
