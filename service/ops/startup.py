"""Waiting for dependencies at start-up, so that processes may start in any order."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from dataclasses import dataclass
from types import FrameType
from typing import Literal

import structlog

from service.artifacts import ArtifactStore
from service.ops.readiness import (
    NotReady,
    begin,
    check_broker,
    check_database,
    check_schema,
    check_store,
    outcome,
    unusable_path,
)
from service.queue import celery_app
from service.settings import Settings
from service.store.database import Database
from service.store.migrate import Schema

log = structlog.get_logger()

Process = Literal["api", "worker", "migrate"]

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 3.0
_LOG_INTERVAL_SECONDS = 10.0
# Of one check: longer than a connection attempt may take, shorter than a hung server's.
_CHECK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Dependency:
    name: str
    check: Callable[[], None]
    """Raises NotReady."""
    is_vital: bool = True
    """Otherwise it is checked once, and the process starts without it."""


def wait_for(process: Process, settings: Settings) -> None:
    """Return once `process` can start; with FAIRTUNE_WAIT_SECONDS=0 check only once.

    Raises SystemExit: with 1 if a dependency is not ready in time or waiting cannot help, after
    logging which and the remedy; with 128 + the signal's number on TERM or INT, since the process
    has not done its work.
    """
    deadline = time.monotonic() + settings.wait_seconds
    with _exit_on_signals():
        for dependency in _dependencies(process, settings):
            if dependency.is_vital:
                _wait(dependency, deadline)
            elif (missing := _check(dependency)) is not None:
                log.warning(f"starting without the {dependency.name}", why=missing.detail)
    if process == "worker":
        _log_shared_store(settings)


def _dependencies(process: Process, settings: Settings) -> Iterator[_Dependency]:
    def database() -> None:
        with _connected(settings) as connected:
            check_database(connected)

    def schema() -> None:
        expected = {Schema.CURRENT, Schema.BEHIND} if process == "migrate" else {Schema.CURRENT}
        with _connected(settings) as connected:
            check_schema(connected, frozenset(expected))

    def store() -> None:
        try:
            check_store(ArtifactStore(settings.artifacts_url))
        except OSError as error:
            raise unusable_path(error, "FAIRTUNE_ARTIFACTS_URL") from error

    def messages() -> None:
        try:
            app = celery_app.make_app(settings)
        except OSError as error:
            raise unusable_path(error, "FAIRTUNE_BROKER_URL") from error
        check_broker(app)

    yield _Dependency("database", database)
    yield _Dependency("schema", schema)
    if process != "migrate":
        yield _Dependency("artifact store", store)
        # The API accepts runs without one: workers find queued jobs in the database too.
        yield _Dependency("broker", messages, is_vital=process == "worker")


@contextlib.contextmanager
def _connected(settings: Settings) -> Iterator[Database]:
    """A connection for one check, so that none from before the wait is used."""
    try:
        database = Database(settings.database_url)
    except OSError as error:  # SQLite's directory
        raise unusable_path(error, "FAIRTUNE_DATABASE_URL") from error
    try:
        yield database
    finally:
        database.dispose()


def _check(dependency: _Dependency) -> NotReady | None:
    """Return the error of one check; None if the dependency is ready."""
    # On a thread, so that neither a server that hangs nor a lookup of its name delays a signal.
    check = begin(dependency.check)
    if not wait([check], timeout=_CHECK_SECONDS).done:
        return NotReady(
            "no answer", "it does not answer", "see whether its server is overloaded or stopped"
        )
    return outcome(check)


def _wait(dependency: _Dependency, deadline: float) -> None:
    """Wait for a dependency. Raises SystemExit; the last check may end after the deadline."""
    began = time.monotonic()
    pause, logged_at = _FIRST_PAUSE_SECONDS, 0.0
    while True:
        missing = _check(dependency)
        now = time.monotonic()
        if missing is None:
            if logged_at:
                log.info(f"the {dependency.name} is there", seconds=round(now - began, 1))
            return
        if not missing.may_mend or now >= deadline:
            log.error(
                f"not started: no {dependency.name}" if missing.may_mend else "not started",
                what=dependency.name,
                why=missing.detail,
                remedy=missing.remedy,
                waited_seconds=round(now - began, 1),
            )
            raise SystemExit(1)
        if not logged_at or now - logged_at >= _LOG_INTERVAL_SECONDS:
            log.info(
                f"waiting for the {dependency.name}",
                why=missing.detail,
                remedy=missing.remedy,
                seconds_left=round(deadline - now),
            )
            logged_at = now
        time.sleep(min(pause, deadline - now))
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


@contextlib.contextmanager
def _exit_on_signals() -> Iterator[None]:
    """End the process at once on TERM and INT, also as process 1 of a container.

    The kernel delivers no signal to such a process for which it has no handler.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _log_shared_store(settings: Settings) -> None:
    """Log that a directory used as the store must be the same on every machine."""
    if settings.artifacts_url.startswith("s3:"):
        return
    on_one_machine = settings.database_url.startswith("sqlite") or settings.broker_url.startswith(
        "file:"
    )
    if not on_one_machine:
        log.info(
            "the artifact store is a directory: the API and every worker must see this same one, "
            "on every machine",
            directory=settings.artifacts_url,
        )
