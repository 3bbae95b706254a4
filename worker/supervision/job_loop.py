"""The loop of a worker: claim the oldest queued job, supervise it to its end, look for the next."""

import contextlib
import threading
from collections.abc import Callable, Collection
from enum import Enum

import structlog

from service.artifacts import ArtifactStore
from service.domain.errors import Unavailable
from service.settings import Settings
from service.store import jobs
from service.store.database import Database
from service.store.jobs import Claim
from worker.supervision.retry import Shutdown
from worker.supervision.supervisor import Supervisor

log = structlog.get_logger()

LOOK_SECONDS = 5.0
"""Between two looks of an idle worker at the database. It is also this worker's pause after a
failed attempt, messages or not: what broke may need a moment."""


class Outcome(Enum):
    """What became of the search for one job."""

    NOTHING = "no job could be claimed, or it returned to the queue at no cost"
    ENDED = "the job has ended"
    FAILED = "the attempt failed and the job returned to the queue"


class JobLoop:
    """Works on queued jobs of some kinds, one at a time, until the worker is told to stop.

    A queue message calls `work`, and so does a thread every LOOK_SECONDS: neither a lost message
    nor an unreachable broker keeps an idle worker from a job.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: ArtifactStore,
        shutdown: Shutdown,
        owner: str,
        kinds: Collection[str],
        notify: Callable[[str], None],
    ) -> None:
        """`kinds` are names. `notify` sends a message to a queue; it may raise Unavailable."""
        self._settings = settings
        self._database = database
        self._store = store
        self._shutdown = shutdown
        self._owner = owner
        self._kinds = kinds
        self._notify = notify
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._look, name="job loop", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Wait until the thread has finished its job or returned it to the queue."""
        if not self._shutdown.requested.is_set():  # a second time would mean: at once
            self._shutdown.request()
        if self._thread.is_alive():
            self._thread.join()

    def work(self) -> None:
        """Work on queued jobs, the oldest first, until none is left or the worker is to stop.

        While another thread works it waits for it: so a busy worker leaves queue messages to
        others, and Celery's shutdown waits for the job.
        """
        with self._lock:
            while not self._shutdown.requested.is_set():
                outcome = self._work_on_next()
                if outcome is Outcome.FAILED:
                    # With the lock held: a message that waits already shall not cut it short.
                    self._shutdown.requested.wait(LOOK_SECONDS)
                if outcome is not Outcome.ENDED:
                    return

    def _look(self) -> None:
        while True:
            try:
                self.work()
            except Exception:
                log.exception("the job loop failed")
            if self._shutdown.requested.wait(LOOK_SECONDS):
                return

    def _work_on_next(self) -> Outcome:
        """Bring one job to its end. Only after ENDED may the next one be claimed at once."""
        try:
            claim = self._claim_next()
        except Unavailable as error:
            log.warning("no job claimed", error=error.detail)
            return Outcome.NOTHING
        if claim is None:
            return Outcome.NOTHING
        with structlog.contextvars.bound_contextvars(
            run_id=claim.run_id,
            job_id=claim.job_id,
            token=claim.token,
            request_id=claim.request_id,
        ):
            is_free = Supervisor(
                self._settings, self._database, self._store, claim, self._shutdown
            ).run()
        if not self._has_returned(claim):
            return Outcome.ENDED
        if not is_free:
            return Outcome.FAILED
        with contextlib.suppress(Unavailable):  # then the sweep tells them
            self._notify(claim.kind.queue)
        return Outcome.NOTHING  # the run or this worker is to stop: others may go on

    def _claim_next(self) -> Claim | None:
        with self._database.read() as session:
            # An idle worker takes no write lock: on SQLite it is one for the whole database.
            if not jobs.has_queued(session, self._kinds):
                return None
        with self._database.write() as session:
            return jobs.claim_next(session, self._owner, self._settings.lease_seconds, self._kinds)

    def _has_returned(self, claim: Claim) -> bool:
        """Return True if the job is in the queue again, or if that cannot be known now."""
        try:
            with self._database.read() as session:
                return jobs.is_queued(session, claim.job_id)
        except Unavailable:
            return True
