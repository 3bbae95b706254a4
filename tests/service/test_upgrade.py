"""A database that 0.1.0 wrote is upgraded with its rows, on both kinds of database.

data/database_0_1_0.sql is the SQLite database of an installation of 0.1.0: runs that succeeded,
failed, were cancelled, are paused and are queued; an evaluation, a merge, a prediction, a
promotion and an API key.
"""

import json
import sqlite3
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import JSON, MetaData, create_engine, text
from sqlalchemy.dialects.postgresql import JSONB

from service.api.app import create_app
from service.settings import Settings
from service.store import migrate
from service.store.database import Database

pytestmark = pytest.mark.both_databases

DUMP = Path(__file__).parent / "data" / "database_0_1_0.sql"
TOKEN = "ft_01m8hxxcf0fptfnh1vm1qs73b4_z4APB1OC57LzNFIeniEHuzkGdUEFLNGade_GIy__RYk"
"""The key of the database; it opens nothing else."""


def write_sqlite(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(DUMP.read_text())
    connection.close()


def copy_rows(path: Path, database: Database) -> None:
    """Copy the rows of the SQLite database into one at the same revision."""
    source = create_engine(f"sqlite:///{path}")
    old, new = MetaData(), MetaData()
    old.reflect(source)
    new.reflect(database.engine)
    with source.connect() as reader, database.engine.begin() as writer:
        for table in new.sorted_tables:
            if table.name == "alembic_version":
                continue
            writer.execute(text(f'DELETE FROM "{table.name}"'))
            is_json = {
                column.name for column in table.columns if isinstance(column.type, JSON | JSONB)
            }
            for row in reader.execute(old.tables[table.name].select()).mappings():
                values = {
                    name: json.loads(value) if name in is_json and isinstance(value, str) else value
                    for name, value in row.items()
                }
                writer.execute(table.insert().values(values))
    source.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    path = tmp_path / "fairtune.db"
    write_sqlite(path)
    if request.param == "sqlite":
        return f"sqlite:///{path}"
    postgres = request.getfixturevalue("postgres")
    postgres.psql("CREATE DATABASE kept;")
    url = postgres.get_uri("kept", driver="psycopg")
    database = Database(url)
    migrate.upgrade(database)
    migrate.downgrade(database, "0008")
    copy_rows(path, database)
    database.dispose()
    return url


def test_a_database_of_0_1_0_is_upgraded_with_its_rows(url, tmp_path):
    database = Database(url)
    migrate.upgrade(database)
    assert migrate.is_current(database)
    database.dispose()

    settings = Settings(data_dir=tmp_path / "data", database_url=url, sweep_seconds=3600)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(create_app(settings), base_url="http://127.0.0.1", headers=headers) as client:
        runs = client.get("/v1/runs").json()["data"]
        by_name = {run["name"]: run for run in runs}
        assert {name: run["status"] for name, run in by_name.items()} == {
            "kept": "succeeded",
            "failing": "failed",
            "a clone": "cancelled",
            "paused": "paused",
            "waiting": "queued",
        }
        assert by_name["failing"]["failure"]["reason"] == "internal"
        assert by_name["waiting"]["queue_position"] == 1
        kept = by_name["kept"]
        assert kept["metrics"]["loss"] > 0
        assert kept["promoted_as"] == ["hate-en@staging"]
        path = f"/v1/runs/{kept['id']}"
        assert [row["step"] for row in client.get(f"{path}/checkpoints").json()["data"]] == [4]
        events = client.get(f"{path}/events?limit=1000").json()["data"]
        assert [event["id"] for event in events] == sorted({event["id"] for event in events})
        assert {"status", "metrics", "checkpoint", "evaluation"} <= {e["type"] for e in events}
        series = client.get(f"{path}/metrics").json()["series"]
        assert [point["step"] for point in series["eval_loss"]] == [2, 4]
        evaluations = client.get(f"{path}/evaluations").json()["data"]
        assert {(row["target"], row["status"]) for row in evaluations} == {
            ("base", "succeeded"),
            ("adapter", "succeeded"),
        }
        assert client.get(f"{path}/merged").json()["status"] == "succeeded"
        (prediction,) = client.get(f"{path}/predictions").json()["data"]
        assert prediction["status"] == "succeeded"
        (dataset,) = client.get("/v1/datasets").json()["data"]
        assert dataset["stats"]["rows"] == 52
        cancelled = client.post(f"/v1/runs/{by_name['waiting']['id']}/cancel")
        assert cancelled.json()["status"] == "cancelled"
        resumed = client.post(f"/v1/runs/{by_name['paused']['id']}/resume")
        assert (resumed.status_code, resumed.json()["status"]) == (200, "queued")
