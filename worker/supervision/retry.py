"""Retrying of database and store operations, and the point at which an attempt gives up."""

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TypeVar

import structlog

from service.domain.errors import Unavailable
from service.domain.states import FailureReason
from service.observability import request_context
from service.store.jobs import Fenced
from worker.supervision.event_shipper import StorageUnavailable
from worker.supervision.lease import Lease
from worker.supervision.transfer_progress import TransferProgress

log = structlog.get_logger()
T = TypeVar("T")

_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
_POLL_SECONDS = 0.1
_FENCED_WAIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """Limits of retrying, in seconds."""

    no_progress: float
    """Without any byte transferred to or from the store."""
    stop_grace: float
    """After this job or worker was asked to stop."""


class Shutdown:
    """The worker's own stop: `requested` by a first TERM, `immediate` by a second."""

    def __init__(self) -> None:
        self.requested = threading.Event()
        self.immediate = threading.Event()

    def request(self) -> None:
        if self.requested.is_set():
            self.immediate.set()
        self.requested.set()


class RetryExhausted(Exception):
    """An operation did not succeed in time: the job goes to another attempt."""

    def __init__(self, detail: str, *, is_full: bool, otherwise: FailureReason) -> None:
        super().__init__(detail)
        self.reason = FailureReason.NO_SPACE if is_full else otherwise

    @classmethod
    def from_error(cls, error: Unavailable) -> "RetryExhausted":
        is_full = isinstance(error, StorageUnavailable) and error.is_full
        return cls(error.detail, is_full=is_full, otherwise=FailureReason.INTERNAL)


class StorageRetry:
    """Operations of one attempt. All calls come from the supervisor's own thread."""

    def __init__(
        self, lease: Lease, shutdown: Shutdown, transfers: TransferProgress, limits: RetryLimits
    ) -> None:
        self._lease = lease
        self._shutdown = shutdown
        self._transfers = transfers
        self._limits = limits
        self._stop_since: float | None = None
        self._lock = threading.Lock()
        self._abandoned = 0
        """Operations that hang, on threads for which nothing waits."""
        self._deferred: Callable[[], object] | None = None

    @property
    def has_abandoned(self) -> bool:
        """True if an operation that hangs is still running on an abandoned thread."""
        with self._lock:
            return self._abandoned > 0

    def after_abandoned(self, action: Callable[[], object]) -> None:
        """Call `action` now, or when the last abandoned operation has ended, on its thread."""
        with self._lock:
            if self._abandoned:
                self._deferred = action
                return
        action()

    def stop_requested(self) -> bool:
        """Return True if the job or this worker is to stop. A pause may be withdrawn."""
        if self._lease.request is None and not self._shutdown.requested.is_set():
            self._stop_since = None
            return False
        if self._stop_since is None:
            self._stop_since = time.monotonic()
        return True

    def grace_period_over(self) -> bool:
        if not self.stop_requested() or self._stop_since is None:
            return False
        elapsed = time.monotonic() - self._stop_since
        return self._shutdown.immediate.is_set() or elapsed > self._limits.stop_grace

    def run(self, action: Callable[[], T], max_seconds: float | None = None) -> T:
        """Repeat `action` until the database and the store are available: no result may be lost.

        Raises Fenced, and RetryExhausted after `max_seconds` (default: limits.no_progress) without
        progress, or at the end of the grace period if this worker or job is to stop.
        """
        attempt = 0
        since = time.monotonic()
        last_error: StorageUnavailable | None = None
        while True:
            try:
                return self.run_watched(action, max_seconds, since)
            except RetryExhausted as error:  # during a retry: the error before is more specific
                if last_error is None:
                    raise
                raise RetryExhausted.from_error(last_error) from error
            except Unavailable as error:
                last_error = error if isinstance(error, StorageUnavailable) else None
                if last_error is None:
                    # Without the database no other worker could take over the job either.
                    since = time.monotonic()
                too_long = last_error is not None and self._no_progress(max_seconds, since)
                if self.grace_period_over() or too_long:
                    raise RetryExhausted.from_error(error) from error
                pause = _BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)]
                attempt += 1
                log.warning("retrying", error=error.detail, seconds=pause)
                if self._lease.lost.wait(pause):
                    raise Fenced from error

    def run_watched(
        self, action: Callable[[], T], max_seconds: float | None = None, since: float | None = None
    ) -> T:
        """Run `action` on a thread of its own, which is abandoned if it hangs.

        Raises the action's exception; Fenced if the job is lost meanwhile; RetryExhausted at the
        end of the grace period, or after `max_seconds` without progress, counted from `since`
        (default: now).
        """
        since = time.monotonic() if since is None else since
        future: Future[T] = Future()
        abandoned = threading.Event()

        def act() -> None:
            try:
                future.set_result(action())
            except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
                future.set_exception(error)
            self._after_action(abandoned)

        threading.Thread(target=request_context.carried(act), name="watched", daemon=True).start()
        while not wait([future], _POLL_SECONDS).done:
            if self._lease.lost.is_set():
                # Perhaps because of what this very action records: then it is about to return.
                wait([future], _FENCED_WAIT_SECONDS)
                if self._abandon(future, abandoned):
                    raise Fenced
                continue
            is_over = self.grace_period_over() or self._no_progress(max_seconds, since)
            if is_over and self._abandon(future, abandoned):
                raise RetryExhausted(
                    "the artifact store or the database does not respond",
                    is_full=False,
                    otherwise=FailureReason.INTERNAL,
                )
        return future.result()

    def _no_progress(self, max_seconds: float | None, since: float) -> bool:
        limit = self._limits.no_progress if max_seconds is None else max_seconds
        return time.monotonic() - max(since, self._transfers.last_progress) > limit

    def _abandon(self, future: Future[T], abandoned: threading.Event) -> bool:
        """Abandon an action; return False if it has ended meanwhile."""
        with self._lock:
            if future.done():
                return False
            abandoned.set()
            self._abandoned += 1
            return True

    def _after_action(self, abandoned: threading.Event) -> None:
        with self._lock:
            if not abandoned.is_set():
                return
            self._abandoned -= 1
            action = None
            if not self._abandoned:
                action, self._deferred = self._deferred, None
        if action is not None:
            with contextlib.suppress(Unavailable):
                action()
