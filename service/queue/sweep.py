"""The sweep, a thread in every API and worker: recovery from lost workers and messages."""

import threading
import time
from collections.abc import Callable

import structlog
from celery import Celery

from service.artifacts import ArtifactStore
from service.domain.errors import Unavailable
from service.domain.job_kinds import job_kind
from service.domain.lease import RENEWAL_SECONDS
from service.domain.states import FailureReason
from service.queue import celery_app, filesystem_transport
from service.settings import Settings
from service.store import jobs, program_events, retention
from service.store.database import Database
from service.store.orphaned_files import OrphanedFiles

log = structlog.get_logger()


_EXPIRY_SECONDS = 3600.0


class Sweeper:
    """Guarded updates only, so that any number of sweepers may run at once."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: ArtifactStore,
        app: Celery,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """`beat` is called after each round of the thread, including a failed one."""
        self.settings = settings
        self.database = database
        self.store = store
        self.app = app
        self._orphans = OrphanedFiles(database, store)
        self._beat = beat
        self._seen: dict[tuple[str, int], float] = {}
        """Expired leases, and since when this sweeper has seen them expired."""
        self._renewal_seconds = 2 * min(settings.lease_seconds / 4, RENEWAL_SECONDS)
        self._expire_at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sweep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _loop(self) -> None:
        # At once when starting: an earlier process may have left expired leases.
        not_before = 0.0
        while True:
            try:
                if time.monotonic() >= not_before:
                    self.sweep()
            except Unavailable as error:
                self._seen.clear()
                not_before = time.monotonic() + self.settings.lease_seconds
                log.warning("sweep failed", error=error.detail)
            except Exception:
                log.exception("sweep failed")
            self._beat()
            if self._stop.wait(self.settings.sweep_seconds):
                return

    def sweep(self) -> None:
        """Return jobs with expired leases to the queue; send a message to queues where jobs wait.

        Raises Unavailable where the database cannot be reached, or could not until now: leases are
        old then because their owners could not renew them, and the caller gives them time to do so.
        """
        began = time.monotonic()
        with self.database.read() as session:
            expired = jobs.expired(session)
        # After a suspended machine or an outage of the database every lease is expired: only one
        # that its owner does not renew for a while, in which it could, is lost.
        self._seen = {lease: since for lease, since in self._seen.items() if lease in expired}
        for lease in expired:
            if lease not in self._seen:
                with self.database.write() as session:
                    is_rewritten = jobs.rewrite_expired_lease(session, lease[0])
                if is_rewritten:
                    self._seen[lease] = time.monotonic()
        for lease, since in self._seen.items():
            if time.monotonic() - since >= self._renewal_seconds:
                try:
                    self._recover(*lease, began)
                except Unavailable:
                    raise
                except Exception:
                    log.exception("lost job not recovered", job_id=lease[0])
        self._notify()
        folder = celery_app.folder_of(self.settings)
        if folder is not None:
            filesystem_transport.sweep(folder)
        self._expire()

    def _notify(self) -> None:
        with self.database.read() as session:
            kinds = jobs.queued_kinds(session)
        try:
            for queue in sorted({job_kind(kind).queue for kind in kinds}):
                celery_app.notify(self.app, queue)
        except Unavailable as error:
            log.warning("no queue message sent", error=error.detail)

    def _expire(self) -> None:
        """Once an hour, delete checkpoints that are older than the configured age."""
        days, now = self.settings.checkpoint_days, time.monotonic()
        if not days or now < self._expire_at:
            return
        self._expire_at = now + _EXPIRY_SECONDS
        with self.database.write() as session:
            unused = retention.expire_checkpoints(session, days)
        for checkpoint in unused:  # after the commit: no row may name files that are gone
            if not self.store.delete_tree(checkpoint.prefix):
                self._orphans.remove(program_events.run_of(checkpoint.prefix))
        if unused:
            log.info("checkpoints expired", count=len(unused))

    def _recover(self, job_id: str, token: int, began: float) -> None:
        with self.database.write() as session:
            job = jobs.lock_expired(session, job_id, token)
            if job is None:  # renewed meanwhile, or another sweep has it
                return
            if (waited := time.monotonic() - began) > self.settings.lease_seconds / 4:
                raise Unavailable(f"the database kept the sweep waiting for {waited:.1f} s")
            owner = job.owner
            detail = f"the worker {owner} stopped renewing its lease; attempt {job.attempts}"
            reason = FailureReason.WORKER_LOST
            job.takeovers += 1
            status = jobs.return_to_queue(session, job, token, reason, detail, free=False)
        log.warning(
            "lease expired",
            run_id=job.run_id,
            job_id=job_id,
            token=token,
            request_id=job.request_id,
            owner=owner,
            now=status,
        )
        # Files that the lost attempt stored without recording them, or replaced, since no later
        # attempt may follow. Its worker, should it resume, is fenced.
        self._orphans.remove(job.run_id)
