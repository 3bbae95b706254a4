"""Readiness checks of each dependency, with a remedy if one fails."""

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future

from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from service.artifacts import ArtifactStore, StoreUnavailable
from service.domain.errors import Unavailable
from service.queue import celery_app
from service.store import migrate
from service.store.database import Database
from service.store.migrate import Schema

MIGRATE = "run: fairtune migrate"


class NotReady(Exception):
    """A dependency cannot be used now."""

    def __init__(self, state: str, detail: str, remedy: str, *, may_mend: bool = True) -> None:
        super().__init__(detail)
        self.state = state
        """Public: without names of hosts, users or paths."""
        self.detail = detail
        """Message of the dependency itself, for the log; without a password."""
        self.remedy = remedy
        self.may_mend = may_mend
        """True if waiting may help; for a wrong path it does not."""


def check_database(database: Database) -> None:
    """Raise NotReady if the database does not answer or denies access."""
    try:
        with database.read() as session:
            session.connection()
    except Unavailable as error:
        raise _unreachable(error) from error
    except SQLAlchemyError as error:
        raise _refused(error) from error


def check_schema(database: Database, expected: frozenset[Schema]) -> None:
    """Raise NotReady if the state of the schema is not an `expected` one."""
    try:
        present = migrate.schema(database)
    except Unavailable as error:
        raise _unreachable(error) from error
    except SQLAlchemyError as error:
        raise _refused(error) from error
    if present in expected:
        return
    if present is Schema.AHEAD:
        raise NotReady(
            "a newer version's",
            "a newer version of Fairtune has migrated this database",
            "install that version here, or restore the backup from before the upgrade",
            may_mend=False,
        )
    raise NotReady(
        f"behind this version's; {MIGRATE}", "the schema is behind this version's", MIGRATE
    )


def check_broker(app: Celery) -> None:
    """Raise NotReady if no message can be sent."""
    try:
        celery_app.check(app)
    except Unavailable as error:
        raise NotReady("unreachable", error.detail, "see FAIRTUNE_BROKER_URL") from error


def check_store(store: ArtifactStore) -> None:
    """Raise NotReady if the artifact store is missing or, as a directory, not writable."""
    try:
        store.check()
    except StoreUnavailable as error:  # also if bucket or permissions do not exist yet
        raise NotReady(
            "unreachable or not permitted",
            str(error.strerror),
            "see FAIRTUNE_ARTIFACTS_URL and the AWS_* variables: the bucket must exist, and the "
            "credentials must let its files be listed, read, written and deleted",
        ) from error
    except OSError as error:
        raise unusable_path(error, "FAIRTUNE_ARTIFACTS_URL") from error


def unusable_path(error: OSError, setting: str) -> NotReady:
    """Return the error of an unusable directory; one that is mounted late may become usable."""
    permanent = isinstance(error, PermissionError | NotADirectoryError | FileExistsError)
    return NotReady(
        "missing or may not be written",
        f"{error.strerror}: {error.filename}",
        f"see {setting}: the directory must be mounted, and this user must own it",
        may_mend=not permanent,
    )


def _unreachable(error: Unavailable) -> NotReady:
    reason = getattr(error.__cause__, "orig", None)
    # A file that cannot be opened stays so; one that another process has locked does not.
    permanent = isinstance(reason, sqlite3.OperationalError) and (
        reason.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    )
    return NotReady(
        "unreachable",
        " ".join(error.detail.split()),
        "see FAIRTUNE_DATABASE_URL",
        may_mend=not permanent,
    )


def _refused(error: SQLAlchemyError) -> NotReady:
    """Return the error of a database that answers with an error, such as a missing permission."""
    reason = getattr(error, "orig", None) or error
    return NotReady(
        "unusable",
        f"the database cannot be used: {' '.join(str(reason).split())}",
        "see FAIRTUNE_DATABASE_URL",
        may_mend=False,
    )


def begin(check: Callable[[], None]) -> Future[None]:
    """Run `check` on a thread of its own, so that no caller has to wait for one that hangs."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            check()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name="readiness", daemon=True).start()
    return future


def outcome(check: Future[None]) -> NotReady | None:
    """Return the error of a finished check; None if the dependency is ready."""
    error = check.exception()
    if error is None or isinstance(error, NotReady):
        return error
    detail = f"{type(error).__name__}: {error}"
    return NotReady("unusable", detail, "this is unexpected; please report it", may_mend=False)
