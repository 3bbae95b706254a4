"""The sweep: what repairs lost messages and lost workers. A thread in every API and worker."""

import threading
import time

import structlog
from celery import Celery

from service import broker, broker_files
from service.domain.errors import Unavailable
from service.domain.states import FailureReason
from service.settings import Settings
from service.store import jobs
from service.store.database import Database

log = structlog.get_logger()

# A queued job is woken again after this many sweeps without a claim.
_PATIENCE = 3


class Sweeper:
    """Guarded updates only, so that any number of sweepers may run at once."""

    def __init__(self, settings: Settings, database: Database, app: Celery) -> None:
        self.settings = settings
        self.database = database
        self.app = app
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sweep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _loop(self) -> None:
        # At once when starting: what an earlier process left waits for it.
        not_before = 0.0
        while True:
            try:
                if time.monotonic() >= not_before:
                    self.sweep()
            except Unavailable as error:
                # After an outage leases are old because nobody could renew them: give their
                # owners the time of one lease to do so.
                not_before = time.monotonic() + self.settings.lease_seconds
                log.warning("sweep failed", error=error.detail)
            except Exception:
                log.exception("sweep failed")
            if self._stop.wait(self.settings.sweep_seconds):
                return

    def sweep(self) -> None:
        """Return expired leases to the queue and wake workers for jobs that nobody picked up.

        Raises Unavailable where the database cannot be reached.
        """
        with self.database.read() as session:
            lost = jobs.expired(session)
        for job_id in lost:
            self._take_back(job_id)
        with self.database.write() as session:
            waiting = jobs.unclaimed(session, self.settings.sweep_seconds * _PATIENCE)
        for number, job_id in enumerate(waiting):
            try:
                broker.enqueue(self.app, job_id)
            except Unavailable as error:
                log.warning("nobody woken", error=error.detail)
                with self.database.write() as session:
                    for unsent in waiting[number:]:
                        jobs.not_woken(session, unsent)
                break
        folder = broker.folder_of(self.settings)
        if folder is not None:
            broker_files.sweep(folder)

    def _take_back(self, job_id: str) -> None:
        with self.database.write() as session:
            job = jobs.hold_expired(session, job_id)
            if job is None:  # renewed meanwhile, or another sweep has it
                return
            owner = job.owner
            detail = f"the worker {owner} stopped answering, {job.attempts} attempts in all"
            reason = FailureReason.WORKER_LOST
            status = jobs.give_back(session, job, job.token, reason, detail, free=False)
        log.warning("lease expired", job_id=job_id, owner=owner, now=status)
