"""Supervision of one attempt: starts the program, ships its events and files, stops it."""

import contextlib
import signal
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from service.artifacts import ArtifactStore, DamagedFile
from service.domain.errors import ProgramFailure
from service.domain.events import EXIT_DONE, EXIT_FAILED, EXIT_NO_SPACE, EXIT_STOPPED
from service.domain.job import EVENTS_FILE
from service.domain.states import FailureReason
from service.settings import Settings
from service.store.database import Database
from service.store.jobs import Claim, Fenced
from service.store.orphaned_files import OrphanedFiles
from worker.runtime.disk_errors import is_full
from worker.runtime.out_of_memory import Batch
from worker.runtime.ranks import describe_exit
from worker.supervision import job_directory
from worker.supervision.event_shipper import EventShipper, ShippingThread, StorageUnavailable
from worker.supervision.job_preparation import JobPreparation
from worker.supervision.kernel_oom import oom_kills
from worker.supervision.lease import Lease
from worker.supervision.oom_retry import halve_batch
from worker.supervision.outcome import OutcomeRecorder
from worker.supervision.program_process import ProgramProcess
from worker.supervision.retry import RetryExhausted, RetryLimits, Shutdown, StorageRetry
from worker.supervision.stall_detector import StallDetector, StallLimits
from worker.supervision.transfer_progress import TransferProgress
from worker.supervision.weights_cache import WeightsCache

log = structlog.get_logger()
T = TypeVar("T")

_LOG_RETRY_SECONDS = 10.0
_LOG_TAIL_LINES = 5
_LATE_UPLOAD_SECONDS = 600.0
_STOP_REQUESTED = "the run or its worker was asked to stop"

# Failures reported by a program that another attempt may not meet; any other fails the job at once.
_TRANSIENT_REASONS = frozenset(
    {FailureReason.NO_SPACE, FailureReason.CRASHED, FailureReason.INTERNAL}
)


class Supervisor:
    """One attempt at one job. `run` returns when the attempt's outcome is recorded.

    This thread starts, watches and stops the program; another renews the lease, another ships.
    Operations that leave this machine never run on this thread, so that nothing that hangs can
    block the job: it is abandoned, and the fencing token makes it harmless.
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
        self.transfers = TransferProgress()
        self.shipper = EventShipper(database, store, claim, self.directory, self.transfers)
        self.orphans = OrphanedFiles(database, store)
        self.lease = Lease(database, claim, settings.lease_seconds)
        self.storage_retry = StorageRetry(
            self.lease,
            shutdown,
            self.transfers,
            RetryLimits(settings.storage_patience_seconds, settings.stop_grace_seconds),
        )
        self._cache = WeightsCache.in_jobs_dir(settings.jobs_dir, settings.weights_cache_bytes)
        self._outcome = OutcomeRecorder(database, claim, self.storage_retry, self._cache)
        self._stop_sent = False
        """True if the last program was asked to stop."""
        self._heartbeat_missed = False
        """True if the program may have stopped because no heartbeat reached it."""
        self._stalled: str | None = None
        self._memory_killed = False

    def run(self) -> bool:
        """Return True if the job returned to the queue at no cost, to be taken at once.

        After a failure it waits for the next sweep, since the cause may need a moment to pass.
        """
        with self.lease:
            try:
                self._attempt()
            except Fenced:
                log.warning("the lease on the job is lost")
            except RetryExhausted as error:
                self._give_up(error)
            except Exception:
                log.exception("the supervisor failed")
                with contextlib.suppress(Fenced, RetryExhausted):
                    self.storage_retry.run(self.shipper.ship_log, _LOG_RETRY_SECONDS)
                with contextlib.suppress(Fenced, RetryExhausted):
                    self._outcome.fail(
                        FailureReason.INTERNAL, "the supervisor failed; see the worker's log"
                    )
            finally:
                self.storage_retry.after_abandoned(self._remove_orphans)
        return self._outcome.returned_free

    def _attempt(self) -> None:
        log.info("attempt started", attempt=self.claim.attempt)
        with contextlib.ExitStack() as stack:
            self.storage_retry.run(
                lambda: self._as_unavailable(lambda: stack.enter_context(self._own_directory()))
            )
            job_directory.remove_abandoned(self.settings.jobs_dir)
            self._cache.trim()
            self.orphans.remove(self.claim.run_id)  # of earlier attempts: of a killed worker
            try:
                self.storage_retry.run(lambda: self._as_unavailable(self._prepare))
            except DamagedFile as error:
                self._outcome.fail(FailureReason.INTERNAL, str(error))
                return
            except ProgramFailure as error:  # the weights to load no longer exist
                self._outcome.fail(error.reason, error.detail)
                return
            if self.storage_retry.stop_requested():
                self._outcome.return_to_queue(FailureReason.WORKER_LOST, _STOP_REQUESTED, free=True)
                return
            status = self._supervise()
            while self._halve_after_oom(status):
                status = self._supervise()
            self._finish(status)

    def _remove_orphans(self) -> None:
        """Remove the run's orphaned files, once all uploads of this attempt have ended."""
        self.orphans.remove(self.claim.run_id)
        if self.shipper.has_failed_upload:
            self.orphans.remove_later(self.claim.run_id, _LATE_UPLOAD_SECONDS)

    def _own_directory(self) -> contextlib.AbstractContextManager[None]:
        return job_directory.owned(self.directory)

    def _prepare(self) -> None:
        JobPreparation(
            self.directory, self.database, self.store, self.claim, self.transfers, self._cache
        ).prepare(self.settings.models_dir)

    @staticmethod
    def _as_unavailable(action: Callable[[], T]) -> T:
        """Call `action`; raise its OSError, of the disk or the store, as Unavailable."""
        try:
            return action()
        except OSError as error:
            raise StorageUnavailable("the job directory or the artifact store", error) from error

    # -- the program ---------------------------------------------------------------------------

    def _supervise(self) -> int:
        """Run the program to its end; return its exit status. Raises Fenced, RetryExhausted."""
        killed_before = oom_kills()
        settings = self.settings
        detector = StallDetector(
            self.directory / EVENTS_FILE,
            StallLimits(
                settings.startup_limit_seconds,
                settings.step_limit_seconds,
                settings.checkpoint_limit_seconds,
            ),
            settings.poll_seconds,
        )
        try:
            process = ProgramProcess(
                self.claim.kind.program, self.directory, settings.lease_seconds, settings.log_format
            )
        except OSError as error:
            raise RetryExhausted(
                f"the program could not be started: {error}",
                is_full=is_full(error),
                otherwise=FailureReason.CRASHED,
            ) from error
        shipping = ShippingThread(self.shipper, settings.poll_seconds)
        shipping.start()
        try:
            with process:
                status = self._watch(process, detector, shipping)
        finally:
            shipping.stop()
        self._memory_killed = status == -signal.SIGKILL and oom_kills() > killed_before
        self.storage_retry.run_watched(shipping.join)
        if self.lease.lost.is_set():
            raise Fenced(self.claim.job_id)
        if shipping.error is not None:
            raise shipping.error
        return status

    def _watch(
        self, process: ProgramProcess, detector: StallDetector, shipping: ShippingThread
    ) -> int:
        """Wait until the program has ended, or kill it; return its exit status."""
        self._stop_sent, self._heartbeat_missed = False, False
        stop_sent_at, heartbeat_at = 0.0, time.monotonic()
        while (status := process.status()) is None:
            now = time.monotonic()
            if now - heartbeat_at > self.settings.lease_seconds / 2:
                self._heartbeat_missed = True
            process.send_heartbeat()
            heartbeat_at = now
            if self.lease.lost.is_set() or shipping.error is not None:
                return process.kill()
            if not stop_sent_at and self.storage_retry.stop_requested():
                self._stop_sent, stop_sent_at = True, now
                process.terminate()
            if stop_sent_at and (
                self.shutdown.immediate.is_set()
                or now - stop_sent_at > self.settings.stop_grace_seconds
            ):
                return process.kill()
            if (stall := detector.check()) is not None:
                self._stalled = f"{stall}{self._last_lines()}"
                process.dump_stacks()
                return process.kill()
            process.wait(self.settings.poll_seconds)
        return status

    def _halve_after_oom(self, status: int) -> bool:
        """Halve the batch if memory ran out; return True if the program is to be restarted."""
        if self._stalled is not None:
            return False
        self.storage_retry.run(self.shipper.ship)
        failure = self.shipper.failure
        batches: list[Batch | None]
        if status == EXIT_FAILED and failure and failure.reason == FailureReason.OUT_OF_MEMORY:
            batches = [failure.batch]
        elif self._memory_killed:  # training includes validation: either batch may be it
            batches = ["train", "eval"] if self.shipper.current_batch == "train" else ["eval"]
            batches = batches if self.shipper.current_batch else [None]
        else:
            return False
        if not any(
            batch is not None and self.storage_retry.run(self._halve(batch)) for batch in batches
        ):
            return False
        self.shipper.failure, self._memory_killed = None, False
        if self.storage_retry.stop_requested():
            self._stop_sent = True  # the next attempt starts with the smaller batch
        return not self._stop_sent

    def _halve(self, batch: Batch) -> Callable[[], bool]:
        return lambda: self._as_unavailable(
            lambda: halve_batch(self.directory, self.database, self.claim, batch)
        )

    # -- the outcome ---------------------------------------------------------------------------

    def _finish(self, status: int) -> None:
        """Record how the attempt ended. Raises Fenced, RetryExhausted."""
        self.storage_retry.run(self.shipper.ship)
        with contextlib.suppress(RetryExhausted):  # the log alone is not worth an hour of retries
            self.storage_retry.run(self.shipper.ship_log, _LOG_RETRY_SECONDS)
        if not self.storage_retry.has_abandoned:  # else the log may yet be stored and recorded
            with contextlib.suppress(RetryExhausted):
                self.storage_retry.run(self.shipper.remove_orphans, _LOG_RETRY_SECONDS)
        failure = self.shipper.failure
        if status == EXIT_DONE:
            self._outcome.succeed()
        elif (
            status == EXIT_FAILED
            and failure is not None
            and failure.reason not in _TRANSIENT_REASONS
        ):
            self._outcome.fail(failure.reason, failure.detail)
        elif self._stop_sent or (status == EXIT_STOPPED and self._heartbeat_missed):
            self._outcome.return_to_queue(FailureReason.WORKER_LOST, _STOP_REQUESTED, free=True)
        elif self._stalled is not None:
            self._outcome.return_to_queue(FailureReason.STALLED, self._stalled, free=False)
        elif status == EXIT_FAILED and failure is not None:
            self._outcome.return_to_queue(
                failure.reason, failure.detail, free=False, from_program=True
            )
        elif status == EXIT_NO_SPACE:
            detail = "the disk of the job directories is full"
            self._outcome.return_to_queue(FailureReason.NO_SPACE, detail, free=False)
        elif self._memory_killed:
            detail = "the kernel killed the program because the machine's memory ran out"
            self._outcome.fail(FailureReason.OUT_OF_MEMORY, detail)
        else:
            how = describe_exit(status)
            if status == EXIT_STOPPED:
                how = "wrote a checkpoint and stopped, which its worker had not requested"
            detail = f"the program {how}{self._last_lines()}"
            self._outcome.return_to_queue(FailureReason.CRASHED, detail, free=False)

    def _last_lines(self) -> str:
        tail = self.shipper.log_tail(_LOG_TAIL_LINES)
        return f"; its last lines: {tail}" if tail else ""

    def _give_up(self, error: RetryExhausted) -> None:
        """End an attempt whose outcome cannot be stored: what was recorded before still counts."""
        with contextlib.suppress(Fenced):
            try:
                self._outcome.return_to_queue(
                    error.reason, str(error), free=self.storage_retry.stop_requested()
                )
            except RetryExhausted:
                log.warning("the job is left to the sweep of expired leases", error=str(error))
