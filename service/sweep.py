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
        self._blind_since: float | None = None
        self._thread = threading.Thread(target=self._loop, name="sweep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _loop(self) -> None:
        not_before = 0.0
        while not self._stop.wait(self.settings.sweep_seconds):
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

    def sweep(self) -> None:
        """Return expired leases to the queue and wake workers for jobs that nobody picked up."""
        with self.database.read() as session:
            lost = [job.id for job in jobs.expired(session)]
        for job_id in lost:
            self._take_back(job_id)
        with self.database.write() as session:
            waiting = jobs.unclaimed(session, self.settings.sweep_seconds * _PATIENCE)
        for job_id in waiting:
            broker.enqueue(self.app, job_id)
        folder = broker.folder_of(self.settings)
        if folder is not None:
            broker_files.sweep(folder)

    def _take_back(self, job_id: str) -> None:
        with self.database.write() as session:
            job = next((job for job in jobs.expired(session) if job.id == job_id), None)
            if job is None:  # renewed, or another sweep was first
                return
            status = jobs.give_back(
                session,
                job,
                job.token,
                FailureReason.WORKER_LOST,
                f"the worker {job.owner} stopped answering, {job.attempts} attempts in all",
                free=False,
            )
        if status is not None:
            log.warning("lease expired", job_id=job_id, owner=job.owner, now=status.value)
            if status == "queued":
                broker.enqueue(self.app, job_id)
