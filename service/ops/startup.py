"""Waiting at the start for what a process needs: nothing relies on the order of starting."""

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
_SAY_SECONDS = 10.0
# One look at one part: longer than a connection attempt may take, shorter than a hung server does.
_LOOK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Need:
    part: str
    check: Callable[[], None]
    """Raises NotReady."""
    is_vital: bool = True
    """Else it is looked at once, and the process starts without it."""


def wait_for(process: Process, settings: Settings) -> None:
    """Return once `process` can start, or at once where FAIRTUNE_WAIT_SECONDS is 0 and it can.

    Raises SystemExit: with 1 when a part is not there in time or will not come by waiting, having
    logged which and what to do; with 128 + the signal's number when told to stop (TERM, INT), since
    what was asked for has not been done.
    """
    deadline = time.monotonic() + settings.wait_seconds
    with _ended_by_signals():
        for need in _needs(process, settings):
            if need.is_vital:
                _wait(need, deadline)
            elif (missing := _look(need)) is not None:
                log.warning(f"starting without the {need.part}", why=missing.detail)
    if process == "worker":
        _say_what_must_be_shared(settings)


def _needs(process: Process, settings: Settings) -> Iterator[_Need]:
    def database() -> None:
        with _connected(settings) as connected:
            check_database(connected)

    def schema() -> None:
        wanted = {Schema.CURRENT, Schema.BEHIND} if process == "migrate" else {Schema.CURRENT}
        with _connected(settings) as connected:
            check_schema(connected, frozenset(wanted))

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

    yield _Need("database", database)
    yield _Need("schema", schema)
    if process != "migrate":
        yield _Need("artifact store", store)
        # The API accepts runs without one: workers find queued jobs in the database too.
        yield _Need("broker", messages, is_vital=process == "worker")


@contextlib.contextmanager
def _connected(settings: Settings) -> Iterator[Database]:
    """A connection made for one look, so that none from before the wait is used."""
    try:
        database = Database(settings.database_url)
    except OSError as error:  # SQLite's directory
        raise unusable_path(error, "FAIRTUNE_DATABASE_URL") from error
    try:
        yield database
    finally:
        database.dispose()


def _look(need: _Need) -> NotReady | None:
    """What is wrong with the part now; None when nothing is."""
    # On a thread, so that neither a server that hangs nor a lookup of its name delays a signal.
    looking = begin(need.check)
    if not wait([looking], timeout=_LOOK_SECONDS).done:
        return NotReady(
            "no answer", "it does not answer", "see whether its server is overloaded or stopped"
        )
    return outcome(looking)


def _wait(need: _Need, deadline: float) -> None:
    """Raises SystemExit with 1. The last look may end a little after the deadline."""
    began = time.monotonic()
    pause, said = _FIRST_PAUSE_SECONDS, 0.0
    while True:
        missing = _look(need)
        now = time.monotonic()
        if missing is None:
            if said:
                log.info(f"the {need.part} is there", seconds=round(now - began, 1))
            return
        if not missing.may_mend or now >= deadline:
            log.error(
                f"not started: no {need.part}" if missing.may_mend else "not started",
                what=need.part,
                why=missing.detail,
                remedy=missing.remedy,
                waited_seconds=round(now - began, 1),
            )
            raise SystemExit(1)
        if not said or now - said >= _SAY_SECONDS:
            log.info(
                f"waiting for the {need.part}",
                why=missing.detail,
                remedy=missing.remedy,
                seconds_left=round(deadline - now),
            )
            said = now
        time.sleep(min(pause, deadline - now))
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """TERM and INT end the process at once, also where it is the first of a container.

    The kernel keeps from such a process every signal that it has no handler for.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_what_must_be_shared(settings: Settings) -> None:
    """A directory as the store is one that each machine could have its own of."""
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
