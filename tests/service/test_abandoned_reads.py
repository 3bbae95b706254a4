"""A read ends when its client disconnects: its turn, its thread and its connection are free."""

import asyncio
import re
import socket
import threading
from contextlib import closing

import httpx
import pytest
from sqlalchemy import text

from service.store import metrics
from service.store.abandonment import Abandoned, Client, reads_of
from service.usecases.large_reads import LARGE_READS
from tests.support.installation import wait_until

pytestmark = pytest.mark.both_databases

# Statements that no test waits for. The limit of a statement would end them after 30 s.
_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
ENDLESS = {
    "sqlite": f"{_NUMBERS} SELECT sum(i) FROM n",
    "postgresql": "SELECT pg_sleep(600)",
}
SECONDS = 15.0
"""Half of the limit of a statement."""


class EndlessRead:
    """Takes the place of the query that counts a run's points."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended: list[BaseException] = []
        self._lock = threading.Lock()

    def __call__(self, session, _window):
        with self._lock:
            self.begun += 1
        try:
            session.execute(text(ENDLESS[session.get_bind().dialect.name]))
        except BaseException as error:
            self.ended.append(error)
            raise
        raise AssertionError("the statement ended by itself")


@pytest.fixture
def endless(monkeypatch) -> EndlessRead:
    read = EndlessRead()
    monkeypatch.setattr(metrics, "counts", read)
    return read


def request(url: str, path: str) -> socket.socket:
    """Send a request whose answer is never read."""
    address = httpx.URL(url)
    connection = socket.create_connection((address.host, address.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {address.host}\r\n\r\n".encode())
    return connection


def is_executed(context, count: int) -> bool:
    """True if so many of the statements are being executed, as PostgreSQL says; SQLite cannot."""
    if context.database.is_sqlite:
        return True
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' "
    with context.database.read() as session:
        running = session.execute(text(query + "AND state = 'active'")).scalar_one()
    return running == count


def free_turns() -> int:
    return LARGE_READS._running._value


def test_a_read_whose_client_is_gone_ends_in_mid_query(served, context, run_id, endless):
    turns = free_turns()
    with closing(request(served, f"/v1/runs/{run_id}/metrics")):
        wait_until(lambda: endless.begun == 1 and is_executed(context, 1), SECONDS)
        assert free_turns() == turns - 1
        assert context.database.engine.pool.checkedout() >= 1
    wait_until(lambda: endless.ended, SECONDS)
    wait_until(lambda: free_turns() == turns, SECONDS)
    wait_until(lambda: context.database.engine.pool.checkedout() == 0, SECONDS)
    assert is_executed(context, 0)
    assert httpx.get(f"{served}/v1/runs/{run_id}", trust_env=False).status_code == 200


def test_many_at_once_leave_nothing_occupied(served, context, run_id, endless):
    turns = free_turns()
    connections = [request(served, f"/v1/runs/{run_id}/metrics") for _ in range(turns + 3)]
    wait_until(lambda: endless.begun == turns and is_executed(context, turns), SECONDS)
    # Those that wait for a turn give up, too: not one of them begins.
    for connection in reversed(connections):
        connection.close()
    wait_until(lambda: len(endless.ended) == endless.begun and free_turns() == turns, SECONDS)
    wait_until(lambda: LARGE_READS._admitted._value == turns + 8, SECONDS)
    wait_until(lambda: context.database.engine.pool.checkedout() == 0, SECONDS)
    assert not [error for error in endless.ended if isinstance(error, AssertionError)]


def test_a_client_that_stays_gets_its_answer(served, run_id):
    url = f"{served}/v1/runs/{run_id}/metrics"
    with httpx.Client(trust_env=False) as client:  # one connection for all
        for _ in range(3):
            assert client.get(url).status_code == 200
            assert client.get(url, headers={"Accept": "text/csv"}).text.startswith("name,step")
        refused = client.post(f"{served}/v1/runs/{run_id}/evaluations/none/reports", json={})
        assert refused.status_code == 404


def test_the_next_statement_of_a_client_that_is_gone_is_refused(context):
    client = Client()
    with reads_of(client):
        with context.database.read() as session:
            session.execute(text("SELECT 1"))
        with context.database.read() as session:
            client.disconnect()
            with pytest.raises(Abandoned):
                session.execute(text("SELECT 1"))
        with pytest.raises(Abandoned), context.database.read():
            pass
    with context.database.read() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1
    wait_until(lambda: context.database.engine.pool.checkedout() == 0, SECONDS)


def test_what_writes_is_not_interrupted(context):
    client = Client()
    client.disconnect()
    with context.database.write() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_in_the_context_of_an_answered_one_is_answered(client, method):
    """A connection that stays open starts its next request so, if the answer filled its buffer."""
    answered = Client()
    answered.is_gone = True

    async def next_request() -> int:
        transport = httpx.ASGITransport(client.app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            return (await http.request(method, "/v1/runs", json={})).status_code

    with reads_of(answered):
        assert asyncio.run(next_request()) == (200 if method == "GET" else 422)


def test_the_end_of_an_answer_does_not_end_the_next_request_of_its_connection(served, run_id):
    """The server starts a request that is waiting in the context of the one before it."""
    address = httpx.URL(served)
    host = f"Host: {address.host}\r\n"
    body = '{"name": 5}'
    headers = f"{host}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    following = [
        f"GET /v1/runs/{run_id} HTTP/1.1\r\n{host}\r\n",
        f"POST /v1/runs?dry_run=true HTTP/1.1\r\n{headers}\r\n{body}",
        f"GET /v1/presets HTTP/1.1\r\n{host}Connection: close\r\n\r\n",
    ]
    first = f"GET /v1/runs/{run_id}/metrics?format=csv HTTP/1.1\r\n{host}\r\n"
    with socket.create_connection((address.host, address.port)) as connection:
        connection.settimeout(SECONDS)
        connection.sendall("".join([first, *following]).encode())
        answers = b"".join(iter(lambda: connection.recv(65536), b""))
    statuses = re.findall(rb"HTTP/1\.1 (\d+) ", answers)
    assert statuses == [b"200", b"200", b"422", b"200"]
