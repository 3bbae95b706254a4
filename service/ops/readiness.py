"""Whether each part that a process needs can be used now, and if not what to do about it."""

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
    """A part that cannot be used now."""

    def __init__(self, state: str, detail: str, remedy: str, *, may_mend: bool = True) -> None:
        super().__init__(detail)
        self.state = state
        """For everybody to read: without names of hosts, users or paths."""
        self.detail = detail
        """What the part itself said; for the log, and without a password."""
        self.remedy = remedy
        self.may_mend = may_mend
        """Whether it may come by waiting. A wrong path does not."""


def check_database(database: Database) -> None:
    """Raises NotReady where nobody answers or nobody lets us in."""
    try:
        with database.read() as session:
            session.connection()
    except Unavailable as error:
        raise _away(error) from error
    except SQLAlchemyError as error:
        raise _refused(error) from error


def check_schema(database: Database, expected: frozenset[Schema]) -> None:
    """Raises NotReady where the schema stands otherwise to this version's than `wanted`."""
    try:
        present = migrate.schema(database)
    except Unavailable as error:
        raise _away(error) from error
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
    """Raises NotReady where no message can be sent."""
    try:
        celery_app.check(app)
    except Unavailable as error:
        raise NotReady("unreachable", error.detail, "see FAIRTUNE_BROKER_URL") from error


def check_store(store: ArtifactStore) -> None:
    """Raises NotReady where the artifact store is not there, or a directory may not be written."""
    try:
        store.check()
    except StoreUnavailable as error:  # also a bucket or rights that are yet to be made
        raise NotReady(
            "unreachable or not permitted",
            str(error.strerror),
            "see FAIRTUNE_ARTIFACTS_URL and the AWS_* variables: the bucket must exist, and the "
            "credentials must let its files be listed, read, written and deleted",
        ) from error
    except OSError as error:
        raise unusable_path(error, "FAIRTUNE_ARTIFACTS_URL") from error


def unusable_path(error: OSError, setting: str) -> NotReady:
    """Of a directory that cannot be made or used. One that is mounted late may come."""
    hopeless = isinstance(error, PermissionError | NotADirectoryError | FileExistsError)
    return NotReady(
        "missing or may not be written",
        f"{error.strerror}: {error.filename}",
        f"see {setting}: the directory must be mounted, and this user must own it",
        may_mend=not hopeless,
    )


def _away(error: Unavailable) -> NotReady:
    reason = getattr(error.__cause__, "orig", None)
    # A file that cannot be opened stays so; one that another process has locked does not.
    hopeless = isinstance(reason, sqlite3.OperationalError) and (
        reason.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    )
    return NotReady(
        "unreachable",
        " ".join(error.detail.split()),
        "see FAIRTUNE_DATABASE_URL",
        may_mend=not hopeless,
    )


def _refused(error: SQLAlchemyError) -> NotReady:
    """The database answers, but not so that waiting would help: no right to read a table, say."""
    reason = getattr(error, "orig", None) or error
    return NotReady(
        "unusable",
        f"the database cannot be used: {' '.join(str(reason).split())}",
        "see FAIRTUNE_DATABASE_URL",
        may_mend=False,
    )


def begin(check: Callable[[], None]) -> Future[None]:
    """Run `check` on a thread of its own, which nobody has to wait for when it hangs."""
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


def outcome(looked: Future[None]) -> NotReady | None:
    """What a check that has ended found; None when the part is ready."""
    error = looked.exception()
    if error is None or isinstance(error, NotReady):
        return error
    detail = f"{type(error).__name__}: {error}"
    return NotReady("unusable", detail, "nobody has foreseen this; report it", may_mend=False)
