"""Starts a program as a child process, ships what it says and makes, keeps the lease, stops it."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from service.artifacts import ArtifactStore, Damaged
from service.domain.errors import Unavailable
from service.domain.events import EXIT_DONE, EXIT_FAILED, EXIT_NO_SPACE, EXIT_STOPPED
from service.domain.job import EVENTS_FILE
from service.domain.states import FailureReason, JobStatus
from service.settings import Settings
from service.store import jobs
from service.store.database import Database
from service.store.jobs import Claim, Fenced
from worker import job_directory
from worker.child import Child
from worker.lease import Lease
from worker.memory import oom_kills
from worker.pulse import Pulse
from worker.shipper import Shipper, ShippingThread, StorageAway
from worker.shrink import shrink

log = structlog.get_logger()
T = TypeVar("T")

_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
_LOG_PATIENCE_SECONDS = 10.0

# What a program reports and another attempt may not meet again; the rest fails the job at once.
_MAY_PASS = frozenset({FailureReason.NO_SPACE, FailureReason.CRASHED})


class Shutdown:
    """What a worker was told: `asked` by a first TERM, `at_once` by a second."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.at_once = threading.Event()

    def tell(self) -> None:
        if self.asked.is_set():
            self.at_once.set()
        self.asked.set()


class GaveUp(Exception):
    """What could not be stored or recorded for too long: the job goes to another attempt."""

    def __init__(self, error: Unavailable) -> None:
        super().__init__(error.detail)
        full = isinstance(error, StorageAway) and error.is_full
        self.reason = FailureReason.NO_SPACE if full else FailureReason.INTERNAL


class Supervisor:
    """One attempt at one job. `run` returns when the attempt's outcome is recorded.

    Three threads: this one starts, watches and stops the program and never waits for anything
    outside of this machine while it runs; one renews the lease; one ships.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: ArtifactStore,
        claim: Claim,
        shutdown: Shutdown,
    ) -> None:
        self.settings = settings
        self.database = database
        self.store = store
        self.claim = claim
        self.shutdown = shutdown
        self.directory = job_directory.path_of(settings.jobs_dir, claim)
        self.shipper = Shipper(database, store, claim, self.directory)
        self.lease = Lease(settings, database, claim)
        self._told_at: float | None = None
        self._stalled: str | None = None
        self._memory_killed = False

    def run(self) -> None:
        with self.lease:
            try:
                self._attempt()
            except Fenced:
                log.warning("the job is no longer this worker's")
            except GaveUp as error:
                self._leave(error)
            except Exception:
                log.exception("the supervisor failed")
                with contextlib.suppress(Fenced, Unavailable):
                    self.shipper.ship_log()
                with contextlib.suppress(Fenced, GaveUp):
                    self._fail(FailureReason.INTERNAL, "the supervisor failed; its log says how")
            finally:
                with contextlib.suppress(Unavailable):
                    self.shipper.tidy()

    def _attempt(self) -> None:
        log.info("attempt begins", attempt=self.claim.attempt)
        with contextlib.ExitStack() as stack:
            self._insist(lambda: self._reachable(lambda: stack.enter_context(self._held())))
            job_directory.sweep(self.settings.jobs_dir)
            with contextlib.suppress(Unavailable):
                self.shipper.tidy()
            try:
                self._insist(lambda: self._reachable(self._prepare))
            except Damaged as error:
                self._fail(FailureReason.INTERNAL, str(error))
                return
            status = self._supervise()
            while self._shrink(status):
                status = self._supervise()
            self._finish(status)

    def _held(self) -> contextlib.AbstractContextManager[None]:
        return job_directory.held(self.directory)

    def _prepare(self) -> None:
        job_directory.prepare(self.directory, self.settings, self.database, self.store, self.claim)

    @staticmethod
    def _reachable(action: Callable[[], T]) -> T:
        """`action`, with what the disk or the store says against it as Unavailable."""
        try:
            return action()
        except OSError as error:
            raise StorageAway("the job directory or the artifact store", error) from error

    # -- the program ---------------------------------------------------------------------------

    def _supervise(self) -> int:
        """Run the program to its end; return its exit status. Raises Fenced."""
        killed_before = oom_kills()
        pulse = Pulse(self.directory / EVENTS_FILE, self.settings)
        silence = self.settings.lease_seconds
        with (
            ShippingThread(self.shipper, self.settings.poll_seconds) as shipping,
            Child(self.claim.kind, self.directory, silence) as child,
        ):
            while (status := child.status()) is None:
                child.beat()
                if self.lease.lost.is_set() or shipping.error is not None:
                    status = child.kill()
                    break
                if self._must_end() and self._told_at is None:
                    self._told_at = time.monotonic()
                    child.terminate()
                if self._grace_is_over():
                    status = child.kill()
                    break
                if self._stalled is None and (overdue := pulse.overdue()) is not None:
                    self._stalled = f"{overdue}; its last lines: {self.shipper.log_tail(lines=5)}"
                    child.dump()
                    status = child.kill()
                    break
                child.wait(self.settings.poll_seconds)
        if self.lease.lost.is_set():
            raise Fenced(self.claim.job_id)
        if shipping.error is not None:
            raise shipping.error
        self._memory_killed = status == -signal.SIGKILL and oom_kills() > killed_before
        return status

    def _must_end(self) -> bool:
        return self.lease.request is not None or self.shutdown.asked.is_set()

    def _grace_is_over(self) -> bool:
        if self._told_at is None:
            return False
        waited = time.monotonic() - self._told_at
        return self.shutdown.at_once.is_set() or waited > self.settings.stop_grace_seconds

    def _shrink(self, status: int) -> bool:
        """Whether the program ran out of memory and can be started again with smaller batches."""
        if self._must_end() or self._stalled is not None:
            return False
        self._insist(self.shipper.ship)
        failure = self.shipper.failure
        if status == EXIT_FAILED and failure and failure.reason == FailureReason.OUT_OF_MEMORY:
            batch = failure.batch
        elif self._memory_killed:
            batch = self.shipper.batch_at_work
        else:
            return False
        if batch is None or not self._insist(
            lambda: shrink(self.directory, self.database, self.claim, batch)
        ):
            return False
        self.shipper.failure = None
        return True

    # -- the outcome ---------------------------------------------------------------------------

    def _finish(self, status: int) -> None:
        """Record how the attempt ended. Raises Fenced, GaveUp."""
        self._insist(self.shipper.ship)
        with contextlib.suppress(GaveUp):  # the log alone is worth no hour of waiting
            self._insist(self.shipper.ship_log, _LOG_PATIENCE_SECONDS)
        failure = self.shipper.failure
        if status == EXIT_DONE:
            self._switch(JobStatus.SUCCEEDED)
        elif status == EXIT_FAILED and failure is not None and failure.reason not in _MAY_PASS:
            self._fail(failure.reason, failure.detail)
        elif self._must_end() or status == EXIT_STOPPED:
            detail = "the worker was told to stop"
            self._give_back(FailureReason.WORKER_LOST, detail, free=True)
        elif self._stalled is not None:
            self._give_back(FailureReason.STALLED, self._stalled, free=False)
        elif status == EXIT_FAILED and failure is not None:
            self._give_back(failure.reason, failure.detail, free=False)
        elif status == EXIT_NO_SPACE:
            detail = "the disk of the job directories is full"
            self._give_back(FailureReason.NO_SPACE, detail, free=False)
        elif self._memory_killed:
            detail = "the kernel killed the program because the machine's memory ran out"
            self._fail(FailureReason.OUT_OF_MEMORY, detail)
        else:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            tail = self.shipper.log_tail(lines=5)
            detail = f"the program ended with {how}" + (f"; its last lines: {tail}" if tail else "")
            self._give_back(FailureReason.CRASHED, detail, free=False)

    def _leave(self, error: GaveUp) -> None:
        """End an attempt whose end cannot be stored: what was recorded before still counts."""
        with contextlib.suppress(Fenced):
            try:
                self._give_back(error.reason, str(error), free=self._must_end())
            except GaveUp:
                log.warning("the job is left to the sweep", error=str(error))

    def _switch(self, to: JobStatus, **values: Any) -> None:
        def switch() -> bool:
            with self.database.write() as session:
                job = jobs.get(session, self.claim.job_id)
                return jobs.switch_status(
                    session,
                    job,
                    to,
                    held_token=self.claim.token,
                    sources=(JobStatus.RUNNING,),
                    **values,
                )

        if not self._insist(switch):
            raise Fenced(self.claim.job_id)
        log.info("attempt ended", status=to.value)

    def _fail(self, reason: FailureReason, detail: str) -> None:
        self._switch(JobStatus.FAILED, failure_reason=reason, failure_detail=detail)

    def _give_back(self, reason: FailureReason, detail: str, *, free: bool) -> None:
        def give_back() -> JobStatus | None:
            with self.database.write() as session:
                job = jobs.hold(session, self.claim)
                return jobs.give_back(session, job, self.claim.token, reason, detail, free=free)

        log.warning("attempt ended", reason=reason.value, detail=detail)
        if self._insist(give_back) is None:
            raise Fenced(self.claim.job_id)

    def _insist(self, action: Callable[[], T], patience: float | None = None) -> T:
        """Try until the database and the store answer: what was learned must not be lost.

        Raises Fenced; and GaveUp once the store was away for `patience` seconds, or when this
        worker or job was told to stop and the grace period is over.
        """
        began, attempt = time.monotonic(), 0
        patience = self.settings.storage_patience_seconds if patience is None else patience
        while True:
            try:
                return action()
            except Unavailable as error:
                if self._must_end() and self._told_at is None:
                    self._told_at = time.monotonic()
                # Without a database nobody else could take the job over either.
                stored = isinstance(error, StorageAway)
                if self._grace_is_over() or (stored and time.monotonic() - began > patience):
                    raise GaveUp(error) from error
                pause = _BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)]
                attempt += 1
                log.warning("trying again", error=error.detail, seconds=pause)
                if self.lease.lost.wait(pause):
                    raise Fenced(self.claim.job_id) from error
