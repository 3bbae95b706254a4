"""Requests take as long however much is stored: plans of the queries, and limits."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event, text
from sqlmodel import select

from service.domain.errors import Unavailable
from service.store import jobs, runs
from service.store.database import Database
from service.store.tables import Run, RunTag

pytestmark = pytest.mark.both_databases

RUNS = 3000


def _fill(context, run_id: str) -> None:
    """Copy the run, a rare tag on one of the oldest, and finish the copies' jobs."""
    with context.database.write() as session:
        connection = session.connection()
        rows = connection.execute(text("SELECT * FROM run WHERE id = :id"), {"id": run_id})
        columns = list(rows.keys())
        job_columns = list(connection.execute(text("SELECT * FROM job")).keys())
        is_sqlite = context.database.is_sqlite
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"
        number = "printf('%025d', i)" if is_sqlite else "lpad(i::text, 25, '0')"
        tags = 'CASE WHEN i = 5 THEN \'["common", "rare"]\' ELSE \'["common"]\' END'
        values = {
            "id": f"'run_0' || {number}",
            "tags": tags if is_sqlite else f"({tags})::jsonb",
        }
        selected = ", ".join(values.get(name, f'run."{name}"') for name in columns)
        names = ", ".join(f'"{name}"' for name in columns)
        connection.execute(
            text(f"{numbers} INSERT INTO run ({names}) SELECT {selected} FROM run, n"),
            {"count": RUNS},
        )
        values = {
            "id": f"'job_0' || {number}",
            "run_id": f"'run_0' || {number}",
            "status": "'succeeded'",
        }
        selected = ", ".join(values.get(name, f'job."{name}"') for name in job_columns)
        names = ", ".join(f'"{name}"' for name in job_columns)
        connection.execute(
            text(f"{numbers} INSERT INTO job ({names}) SELECT {selected} FROM job, n"),
            {"count": RUNS},
        )
    with context.database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("ANALYZE")


FILTERS = [
    {},
    {"tag": "rare"},
    {"tag": "none"},
    {"tag": "common"},
    {"dataset_id": "ds_none"},
    {"name": "none"},
    {"status": "failed"},
    {"status": "succeeded"},
]


def _steps_of(database: Database, filters: dict[str, str]) -> int:
    """Return the thousands of virtual-machine steps that SQLite takes for a page."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with database.read() as session:
        driver = session.connection().connection.driver_connection
        driver.set_progress_handler(count, 1000)
        runs.list_runs(session, limit=5, after=None, **filters)
        driver.set_progress_handler(None, 0)
    return steps


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_a_page_of_runs_reads_few_rows(context, run_id, filters):
    _fill(context, run_id)
    if context.database.is_sqlite:
        assert _steps_of(context.database, filters) <= 3
        return
    plans = []

    def explain(connection, _cursor, statement, parameters, *_):
        if statement.startswith("SELECT run.id"):
            plan = connection.exec_driver_sql(f"EXPLAIN ANALYZE {statement}", parameters)
            plans.extend(row[0] for row in plan)

    event.listen(context.database.engine, "before_cursor_execute", explain)
    with context.database.read() as session:
        runs.list_runs(session, limit=5, after=None, **filters)
    event.remove(context.database.engine, "before_cursor_execute", explain)
    actual = [line.partition("actual")[2] for line in plans if "actual" in line]
    read = [int(float(line.split("rows=")[1].split()[0])) for line in actual]
    assert read
    assert max(read) <= 50, "\n".join(plans)


def test_tags_select_runs_page_by_page(client, run_id, context):
    _fill(context, run_id)
    rare = client.get("/v1/runs", params={"tag": "rare"}).json()
    assert [run["id"] for run in rare["data"]] == [f"run_{5:026d}"]
    assert client.get("/v1/runs", params={"tag": "none"}).json()["data"] == []
    pages, after = [], None
    for _ in range(3):
        params = {"tag": "common", "limit": 2} | ({"after": after} if after else {})
        page = client.get("/v1/runs", params=params).json()
        pages += [run["id"] for run in page["data"]]
        after = page["next"]
    assert pages == [f"run_{RUNS - number:026d}" for number in range(6)]
    both = client.get("/v1/runs", params={"tag": "rare", "status": "succeeded"}).json()
    assert [run["id"] for run in both["data"]] == [f"run_{5:026d}"]
    assert not client.get("/v1/runs", params={"tag": "rare", "status": "failed"}).json()["data"]


def test_tags_of_a_deleted_run_are_deleted(client, context, dataset_id):
    body = {"dataset_id": dataset_id, "base_model": "tiny", "tags": ["a", "b", "a", "q\"'é"]}
    run_id = client.post("/v1/runs", json=body).json()["id"]
    with context.database.read() as session:
        tags = session.exec(select(RunTag.tag).where(RunTag.run_id == run_id))
        assert sorted(tags) == sorted({"a", "b", "q\"'é"})
    # A process of the previous version deletes the run's row alone.
    assert client.delete(f"/v1/runs/{run_id}").status_code == 204
    with context.database.read() as session:
        assert session.exec(select(RunTag)).all() == []
        assert session.exec(select(Run)).all() == []


def test_positions_in_a_long_queue_are_counted_up_to_a_limit(client, run_id, monkeypatch):
    for _ in range(4):
        client.post(f"/v1/runs/{run_id}/clone", json={})
    monkeypatch.setattr(jobs, "MAX_QUEUE_POSITION", 3)
    listed = client.get("/v1/runs").json()["data"]
    assert [run["queue_position"] for run in listed] == [3, 3, 3, 2, 1]
    assert client.get(f"/v1/runs/{run_id}").json()["queue_position"] == 1


_ENDLESS = {
    True: "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
    False: "SELECT pg_sleep(60)",
}


def test_a_read_that_takes_too_long_is_ended(database_url):
    database = Database(database_url, read_seconds=0.3)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="took too long"), database.read() as session:
        session.execute(text(_ENDLESS[database.is_sqlite]))
    assert time.monotonic() - began < 30
    with database.read() as session:
        assert session.execute(text("SELECT 1")).scalar() == 1
    if not database.is_sqlite:  # a write may take longer
        with database.write() as session:
            session.execute(text("SELECT pg_sleep(0.6)"))
        with pytest.raises(Unavailable, match="took too long"), database.read() as session:
            session.execute(text("SELECT pg_sleep(60)"))
    database.dispose()


def test_slow_reads_leave_connections_for_others(client, context, run_id):
    """As many reads as the interpreter's threads can carry out hold a connection each."""
    held, leave = threading.Semaphore(0), threading.Event()

    def hold() -> None:
        with context.database.read() as session:
            session.execute(text("SELECT 1"))
            held.release()
            leave.wait(60)

    with ThreadPoolExecutor(40) as pool:
        for _ in range(40):
            pool.submit(hold)
        for _ in range(40):
            assert held.acquire(timeout=30)
        try:
            assert client.get("/readyz").json()["parts"]["database"] == "ok"
            assert client.get(f"/v1/runs/{run_id}").status_code == 200
        finally:
            leave.set()
