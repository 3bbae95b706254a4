"""Starts a program as a child process, ships what it says and makes, keeps the lease, stops it."""

import contextlib
import errno
import signal
import time
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from service.artifacts import ArtifactStore, Damaged
from service.domain.errors import ProgramFailure, Unavailable
from service.domain.events import EXIT_DONE, EXIT_FAILED, EXIT_NO_SPACE, EXIT_STOPPED
from service.domain.job import EVENTS_FILE
from service.domain.states import FailureReason, JobStatus
from service.settings import Settings
from service.store import jobs
from service.store.database import Database
from service.store.jobs import Claim, Fenced
from worker.supervision import job_directory
from worker.supervision.event_shipper import Shipper, ShippingThread, StorageAway
from worker.supervision.kernel_oom import oom_kills
from worker.supervision.lease import Lease
from worker.supervision.oom_retry import Batch, shrink
from worker.supervision.program_process import Child
from worker.supervision.retry import RetryExhausted, Shutdown, StorageRetry
from worker.supervision.stall_detector import StallDetector
from worker.supervision.transfer_progress import Movement

log = structlog.get_logger()
T = TypeVar("T")

_LOG_PATIENCE_SECONDS = 10.0
_TOLD = "the run or its worker was told to stop"

# What a program reports and another attempt may not meet again; the rest fails the job at once.
_MAY_PASS = frozenset({FailureReason.NO_SPACE, FailureReason.CRASHED, FailureReason.INTERNAL})


class Supervisor:
    """One attempt at one job. `run` returns when the attempt's outcome is recorded.

    This thread starts, watches and stops the program; another renews the lease, another ships.
    What leaves this machine is never called on this one, so that nothing that hangs can keep the
    job: it is left behind, and the fencing token keeps it from doing harm.
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
        self.movement = Movement()
        self.shipper = Shipper(database, store, claim, self.directory, self.movement)
        self.lease = Lease(settings, database, claim)
        self.storage_retry = StorageRetry(settings, self.lease, shutdown, self.movement)
        self._told = False  # whether the last program was told to stop
        self._stood_still = False  # whether it may have stopped because it did not hear from us
        self._stalled: str | None = None
        self._memory_killed = False
        self._free = False

    def run(self) -> bool:
        """Returns whether the job went back to the queue at no cost, for another to take at once.

        After a failure it waits for the next sweep: what broke may need a moment.
        """
        with self.lease:
            try:
                self._attempt()
            except Fenced:
                log.warning("the job is no longer this worker's")
            except RetryExhausted as error:
                self._leave(error)
            except Exception:
                log.exception("the supervisor failed")
                with contextlib.suppress(Fenced, RetryExhausted):
                    self.storage_retry.run(self.shipper.ship_log, _LOG_PATIENCE_SECONDS)
                with contextlib.suppress(Fenced, RetryExhausted):
                    self._fail(FailureReason.INTERNAL, "the supervisor failed; its log says how")
            finally:
                with contextlib.suppress(Unavailable):
                    self.storage_retry.afterwards(self.shipper.tidy)
        return self._free

    def _attempt(self) -> None:
        log.info("attempt begins", attempt=self.claim.attempt)
        cache = job_directory.cache_of(self.settings)
        with contextlib.ExitStack() as stack:
            self.storage_retry.run(
                lambda: self._reachable(lambda: stack.enter_context(self._held()))
            )
            job_directory.sweep(self.settings.jobs_dir)
            cache.trim()
            with contextlib.suppress(RetryExhausted):
                self.storage_retry.run(self.shipper.tidy_before, _LOG_PATIENCE_SECONDS)
            try:
                self.storage_retry.run(lambda: self._reachable(self._prepare))
            except Damaged as error:
                self._fail(FailureReason.INTERNAL, str(error))
                return
            except ProgramFailure as error:  # what is to be scored is there no more
                self._fail(error.reason, error.detail)
                return
            if self.storage_retry.stop_requested():
                self._give_back(FailureReason.WORKER_LOST, _TOLD, free=True)
                return
            status = self._supervise()
            while self._shrink(status):
                status = self._supervise()
            self._finish(status)

    def _held(self) -> contextlib.AbstractContextManager[None]:
        return job_directory.held(self.directory)

    def _prepare(self) -> None:
        job_directory.prepare(
            self.directory, self.settings, self.database, self.store, self.claim, self.movement
        )

    @staticmethod
    def _reachable(action: Callable[[], T]) -> T:
        """`action`, with what the disk or the store says against it as Unavailable."""
        try:
            return action()
        except OSError as error:
            raise StorageAway("the job directory or the artifact store", error) from error

    # -- the program ---------------------------------------------------------------------------

    def _supervise(self) -> int:
        """Run the program to its end; return its exit status. Raises Fenced, RetryExhausted."""
        killed_before = oom_kills()
        pulse = StallDetector(self.directory / EVENTS_FILE, self.settings)
        silence = self.settings.lease_seconds
        try:
            child = Child(
                self.claim.kind.program, self.directory, silence, self.settings.log_format
            )
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            detail = f"the program could not be started: {error}"
            raise RetryExhausted(detail, is_full=full, otherwise=FailureReason.CRASHED) from error
        shipping = ShippingThread(self.shipper, self.settings.poll_seconds)
        shipping.start()
        try:
            with child:
                status = self._watch(child, pulse, shipping)
        finally:
            shipping.stop()
        self._memory_killed = status == -signal.SIGKILL and oom_kills() > killed_before
        self.storage_retry.watched(shipping.join)
        if self.lease.lost.is_set():
            raise Fenced(self.claim.job_id)
        if shipping.error is not None:
            raise shipping.error
        return status

    def _watch(self, child: Child, pulse: StallDetector, shipping: ShippingThread) -> int:
        """Until the program has ended, or has been killed; its exit status."""
        self._told, self._stood_still = False, False
        told_at, beat_at = 0.0, time.monotonic()
        while (status := child.status()) is None:
            now = time.monotonic()
            if now - beat_at > self.settings.lease_seconds / 2:
                self._stood_still = True
            child.beat()
            beat_at = now
            if self.lease.lost.is_set() or shipping.error is not None:
                return child.kill()
            if not told_at and self.storage_retry.stop_requested():
                self._told, told_at = True, now
                child.terminate()
            if told_at and (
                self.shutdown.at_once.is_set() or now - told_at > self.settings.stop_grace_seconds
            ):
                return child.kill()
            if (overdue := pulse.overdue()) is not None:
                self._stalled = f"{overdue}; its last lines: {self.shipper.log_tail(lines=5)}"
                child.dump()
                return child.kill()
            child.wait(self.settings.poll_seconds)
        return status

    def _shrink(self, status: int) -> bool:
        """Whether the program ran out of memory and is to be started again with smaller batches."""
        if self._stalled is not None:
            return False
        self.storage_retry.run(self.shipper.ship)
        failure = self.shipper.failure
        batches: list[Batch | None]
        if status == EXIT_FAILED and failure and failure.reason == FailureReason.OUT_OF_MEMORY:
            batches = [failure.batch]
        elif self._memory_killed:  # while it trains it also validates: nobody knows which it was
            batches = ["train", "eval"] if self.shipper.batch_at_work == "train" else ["eval"]
            batches = batches if self.shipper.batch_at_work else [None]
        else:
            return False
        if not any(
            one is not None and self.storage_retry.run(self._shrunk(one)) for one in batches
        ):
            return False
        self.shipper.failure, self._memory_killed = None, False
        if self.storage_retry.stop_requested():
            self._told = True  # the next attempt begins with the smaller batch
        return not self._told

    def _shrunk(self, batch: Batch) -> Callable[[], bool]:
        return lambda: self._reachable(
            lambda: shrink(self.directory, self.database, self.claim, batch)
        )

    # -- the outcome ---------------------------------------------------------------------------

    def _finish(self, status: int) -> None:
        """Record how the attempt ended. Raises Fenced, RetryExhausted."""
        self.storage_retry.run(self.shipper.ship)
        with contextlib.suppress(RetryExhausted):  # the log alone is worth no hour of waiting
            self.storage_retry.run(self.shipper.ship_log, _LOG_PATIENCE_SECONDS)
        if (
            not self.storage_retry.left_behind
        ):  # the log, that is, which may yet be stored and recorded
            with contextlib.suppress(RetryExhausted):
                self.storage_retry.run(self.shipper.tidy, _LOG_PATIENCE_SECONDS)
        failure = self.shipper.failure
        if status == EXIT_DONE:
            self._switch(JobStatus.SUCCEEDED)
        elif status == EXIT_FAILED and failure is not None and failure.reason not in _MAY_PASS:
            self._fail(failure.reason, failure.detail)
        elif self._told or (status == EXIT_STOPPED and self._stood_still):
            self._give_back(FailureReason.WORKER_LOST, _TOLD, free=True)
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
            if status == EXIT_STOPPED:
                how = "a checkpoint because somebody other than its worker told it to stop"
            tail = self.shipper.log_tail(lines=5)
            detail = f"the program ended with {how}" + (f"; its last lines: {tail}" if tail else "")
            self._give_back(FailureReason.CRASHED, detail, free=False)

    def _leave(self, error: RetryExhausted) -> None:
        """End an attempt whose end cannot be stored: what was recorded before still counts."""
        with contextlib.suppress(Fenced):
            try:
                self._give_back(error.reason, str(error), free=self.storage_retry.stop_requested())
            except RetryExhausted:
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

        if not self.storage_retry.run(switch):
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
        if reason == FailureReason.NO_SPACE:  # the next attempt shall not fail for what is kept
            job_directory.cache_of(self.settings).empty()
        if self.storage_retry.run(give_back) is None:
            raise Fenced(self.claim.job_id)
        self._free = free
