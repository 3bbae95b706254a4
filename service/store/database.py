"""Engines, sessions and the database's own clock."""

import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import DateTime, Dialect, UnaryExpression, create_engine, event, text
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.types import TypeDecorator
from sqlmodel import Session

from service.domain.errors import Unavailable
from service.store import abandonment
from service.store.abandonment import Abandoned

SQLITE_BUSY_SECONDS = 30
# PostgreSQL's. No transaction of ours waits for anything but the database.
IDLE_IN_TRANSACTION_MS = 10_000
LOCK_WAIT_MS = 20_000
_UNREACHABLE = (OperationalError, InterfaceError)
# Transient SQLSTATEs: a transaction that was idle for too long, and a server that is a standby
# until the failover is done.
_TRANSIENT = frozenset({"25P03", "25006"})
_CANCELLED = "57014"
_CANCEL_SECONDS = 5
TOO_SLOW = "the database took too long to answer: request less at once, or retry later"
_STEPS_BETWEEN_CHECKS = 100_000  # of SQLite's virtual machine: about a millisecond

# A server that vanished silently (a cable, a cloud's network) is an error within half a minute, not
# after TCP's two hours: leases are renewed over these connections. The names are libpq's.
_PROMPT_FAILURE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite, which has no such type, stores it as text without the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class db_now(FunctionElement[datetime]):  # noqa: N801 - used as an SQL function
    """The database's clock plus `offset` seconds: leases must not depend on a worker's clock."""

    type = UtcDateTime()
    inherit_cache = False  # the offset is part of the text

    def __init__(self, offset: float = 0) -> None:
        super().__init__()
        self.offset = float(offset)


@compiles(db_now, "postgresql")
def _postgresql(element: db_now, _compiler: Any, **_: Any) -> str:
    return f"(clock_timestamp() + interval '{element.offset:f} seconds')"


@compiles(db_now, "sqlite")
def _sqlite(element: db_now, _compiler: Any, **_: Any) -> str:
    # Milliseconds padded to the six digits in which SQLAlchemy writes times, so that they compare.
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', '{element.offset:+f} seconds') || '000')"


def unindexed(session: Session, column: Any) -> Any:
    """Return `column` for a condition for which SQLite uses no index.

    Its planner takes an index for any equality, and then sorts all rows that it selects, where the
    order's own index would give the first page at once. PostgreSQL's planner knows the limit.
    """
    if session.get_bind().dialect.name != "sqlite":
        return column
    plain = column.expression
    return UnaryExpression(plain, operator=custom_op("+"), type_=plain.type)


class Database:
    """Sessions on one database.

    `read` and `write` give a session each; `write` commits at its end and rolls back on an error.
    On SQLite a write takes the lock at its beginning, so that it never fails because it read first.
    Raises Unavailable if the database cannot be reached. With `read_seconds` it also ends each
    statement of a read that takes longer. `max_sessions` can be open at the same time. A read of a
    request whose client disconnects is interrupted and raises Abandoned.
    """

    def __init__(
        self, url: str, *, max_sessions: int = 15, read_seconds: float | None = None
    ) -> None:
        self.url = make_url(url)
        self._read_seconds = read_seconds
        self.engine = _engine(url, max_sessions, read_seconds)
        event.listen(self.engine, "before_cursor_execute", _check_client)
        self._reader = self.engine
        self._writer = self.engine.execution_options(fairtune_immediate=True)

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        client = abandonment.current()
        with _reachable(), Session(self._reader, expire_on_commit=False) as session:
            if client is None:
                yield session
                return
            client.check()
            pooled = session.connection().connection
            try:
                with client.interruptible(partial(_interrupt, pooled.dbapi_connection)):
                    yield session
            finally:
                if client.is_gone:  # the interrupt may arrive late, at the next user's statement
                    pooled.invalidate(soft=True)

    @contextmanager
    def write(self) -> Iterator[Session]:
        with _reachable(), Session(self._writer, expire_on_commit=False) as session:
            if self._read_seconds is not None and not self.is_sqlite:
                session.execute(text("SET LOCAL statement_timeout = 0"))
            yield session
            session.commit()

    def dispose(self) -> None:
        """Close every connection; one that a thread still uses, as soon as it is returned."""
        event.listen(self.engine, "checkin", _close)
        self.engine.dispose()


def _close(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.invalidate()


def _interrupt(connection: Any) -> None:
    """End the statement that another thread executes; without one this has no effect."""
    if isinstance(connection, sqlite3.Connection):
        connection.interrupt()
        return
    with suppress(connection.Error):  # a server that vanished
        connection.cancel_safe(timeout=_CANCEL_SECONDS)


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        client = abandonment.current()
        if client is not None and client.is_gone:
            raise Abandoned from error
        state = getattr(error.orig, "sqlstate", None)
        if state == _CANCELLED or _is_interrupted(error.orig):
            raise Unavailable(TOO_SLOW) from error
        transient = state in _TRANSIENT
        if not (isinstance(error, _UNREACHABLE) or transient or error.connection_invalidated):
            raise
        raise Unavailable("the database cannot be reached or is busy", error.orig) from error
    except PoolTimeout as error:
        raise Unavailable("the database is busy: no connection came free in time") from error


def _is_interrupted(error: object) -> bool:
    if not isinstance(error, sqlite3.OperationalError):
        return False
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT


def _bound_waits(connection: Any, _record: Any) -> None:
    """Bound the time for which a vanished client locks a row, and others wait for it.

    A worker that loses its network in the middle of a renewal locks the job's row until the server
    ends the transaction, and the sweep cannot take the job before that.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS}")
        cursor.execute(f"SET lock_timeout = {LOCK_WAIT_MS}")
    connection.commit()


def _bound_sqlite_reads(engine: Engine, seconds: float) -> None:
    """Interrupt a read that takes longer than `seconds`; SQLite has no such setting."""

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, record: ConnectionPoolEntry) -> None:
        def is_late() -> bool:
            deadline: float = record.info.get("deadline", math.inf)
            return time.monotonic() > deadline

        connection.set_progress_handler(is_late, _STEPS_BETWEEN_CHECKS)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("fairtune_immediate")
        connection.info["deadline"] = math.inf if immediate else time.monotonic() + seconds

    @event.listens_for(engine, "rollback")
    @event.listens_for(engine, "commit")
    def _end(connection: Connection) -> None:
        connection.info["deadline"] = math.inf


def sqlite_file(url: str) -> Path | None:
    """Return the path of a SQLite database; None for another kind."""
    parsed = make_url(url)
    return Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None


def _check_client(*_: Any) -> None:
    """Refuse the next statement of a client that disconnected between two of them."""
    abandonment.check()


def _engine(url: str, max_sessions: int, read_seconds: float | None) -> Engine:
    # Beyond a few, connections are closed when they are returned.
    pool: dict[str, Any] = {"pool_size": 5, "max_overflow": max(0, max_sessions - 5)}
    file = sqlite_file(url)
    if file is None:
        engine = create_engine(
            url,
            **pool,
            pool_pre_ping=True,
            pool_recycle=1800,
            hide_parameters=True,  # errors are logged, and parameters are users' texts
            # A server that was set up without a locale has no encoding of its own (SQL_ASCII), and
            # psycopg would hand out bytes for text.
            connect_args=_PROMPT_FAILURE | {"client_encoding": "utf8"},
        )
        event.listen(engine, "connect", _bound_waits)
        if read_seconds is not None:
            milliseconds = round(read_seconds * 1000)

            @event.listens_for(engine, "connect")
            def _bound_statements(connection: Any, _record: Any) -> None:
                connection.execute(f"SET statement_timeout = {milliseconds}")
                connection.commit()

        return engine
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds users' texts and keys
    engine = create_engine(
        url, **pool, hide_parameters=True, connect_args={"timeout": SQLITE_BUSY_SECONDS}
    )
    if read_seconds is not None:
        _bound_sqlite_reads(engine, read_seconds)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        # Files are deleted after commits: a power cut must not undo those.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("fairtune_immediate")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine
