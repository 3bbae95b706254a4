"""The lease on a job, renewed on a thread of its own on which nothing slow ever runs."""

import threading

import structlog

from service.domain.errors import Unavailable
from service.domain.lease import RENEWAL_SECONDS
from service.domain.states import JobRequest
from service.observability import request_context
from service.store import jobs
from service.store.database import Database
from service.store.jobs import Claim, Fenced

log = structlog.get_logger()

_JOIN_SECONDS = 5.0


class Lease:
    """Renewed inside `with`; it ends with a refused renewal, not with an unreachable database."""

    def __init__(self, database: Database, claim: Claim, seconds: float) -> None:
        self._database = database
        self._claim = claim
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=request_context.carried(self._renew_until_ended), name="lease", daemon=True
        )
        self.lost = threading.Event()
        """Set when another worker has the job, or it has ended: this attempt no longer counts."""
        self.request: JobRequest | None = None
        """The user's request to the job, as of the last renewal."""

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        # A database that hangs must not block the worker: what is recorded is fenced anyway.
        self._thread.join(_JOIN_SECONDS)

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(min(self._seconds / 4, RENEWAL_SECONDS)):
            try:
                with self._database.write() as session:
                    self.request = jobs.renew(session, self._claim, self._seconds)
            except Unavailable as error:
                log.warning("lease not renewed", error=error.detail)
            except Fenced:
                self.lost.set()
                return
            except Exception:  # this thread must live as long as the attempt
                log.exception("lease not renewed")
