"""How long a supervisor waits for what is away or hangs, and when it gives up."""

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

import structlog

from service.domain.errors import Unavailable
from service.domain.states import FailureReason
from service.observability import request_context
from service.settings import Settings
from service.store.jobs import Fenced
from worker.supervision.event_shipper import StorageAway
from worker.supervision.lease import Lease
from worker.supervision.transfer_progress import Movement

log = structlog.get_logger()
T = TypeVar("T")

_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
_LOOK_SECONDS = 0.1
_LAST_LOOK_SECONDS = 2.0


class Shutdown:
    """What a worker was told: `asked` by a first TERM, `at_once` by a second."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.at_once = threading.Event()

    def tell(self) -> None:
        if self.asked.is_set():
            self.at_once.set()
        self.asked.set()


class RetryExhausted(Exception):
    """What could not be begun, stored or recorded: the job goes to another attempt."""

    def __init__(self, detail: str, *, is_full: bool, otherwise: FailureReason) -> None:
        super().__init__(detail)
        self.reason = FailureReason.NO_SPACE if is_full else otherwise

    @classmethod
    def on(cls, error: Unavailable) -> "RetryExhausted":
        is_full = isinstance(error, StorageAway) and error.is_full
        return cls(error.detail, is_full=is_full, otherwise=FailureReason.INTERNAL)


class StorageRetry:
    """One attempt's. All calls come from the supervisor's own thread."""

    def __init__(
        self, settings: Settings, lease: Lease, shutdown: Shutdown, movement: Movement
    ) -> None:
        self._settings = settings
        self._lease = lease
        self._shutdown = shutdown
        self._movement = movement
        self._stop_since: float | None = None
        self._lock = threading.Lock()
        self._behind = 0
        """Actions that hang, on threads that nobody waits for."""
        self._last: Callable[[], object] | None = None

    @property
    def left_behind(self) -> bool:
        """Whether something that hangs is still running on a thread that nobody waits for."""
        with self._lock:
            return self._behind > 0

    def afterwards(self, action: Callable[[], object]) -> None:
        """Have `action` done once nothing that was left behind runs any more: now, or by that."""
        with self._lock:
            if self._behind:
                self._last = action
                return
        action()

    def stop_requested(self) -> bool:
        """Whether the job or this worker is to stop; notes since when. A pause may be withdrawn."""
        if self._lease.request is None and not self._shutdown.asked.is_set():
            self._stop_since = None
            return False
        if self._stop_since is None:
            self._stop_since = time.monotonic()
        return True

    def grace_period_over(self) -> bool:
        if not self.stop_requested() or self._stop_since is None:
            return False
        waited = time.monotonic() - self._stop_since
        return self._shutdown.at_once.is_set() or waited > self._settings.stop_grace_seconds

    def run(self, action: Callable[[], T], patience: float | None = None) -> T:
        """Try until the database and the store answer: what was learned must not be lost.

        Raises Fenced; and GaveUp once nothing came further for `patience` seconds, or when this
        worker or job was told to stop and the grace period is over.
        """
        attempt = 0
        since = time.monotonic()
        said: StorageAway | None = None
        while True:
            try:
                return self.watched(action, patience, since)
            except RetryExhausted as error:  # amid a try: the one before tells more
                raise error if said is None else RetryExhausted.on(said) from said
            except Unavailable as error:
                said = error if isinstance(error, StorageAway) else None
                if said is None:
                    # Without a database nobody else could take the job over either.
                    since = time.monotonic()
                too_long = said is not None and self._is_over(patience, since)
                if self.grace_period_over() or too_long:
                    raise RetryExhausted.on(error) from error
                pause = _BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)]
                attempt += 1
                log.warning("trying again", error=error.detail, seconds=pause)
                if self._lease.lost.wait(pause):
                    raise Fenced from error

    def _is_over(self, patience: float | None, since: float) -> bool:
        patience = self._settings.storage_patience_seconds if patience is None else patience
        return time.monotonic() - max(since, self._movement.at) > patience

    def watched(
        self, action: Callable[[], T], patience: float | None = None, since: float | None = None
    ) -> T:
        """`action` on a thread of its own, which is left behind when it hangs.

        Raises what it raises; Fenced when the job is lost meanwhile, and GaveUp at the end of the
        grace period, or when nothing came further for `patience` seconds, from `since` (now) on.
        """
        since = time.monotonic() if since is None else since
        future: Future[T] = Future()
        abandoned = threading.Event()

        def act() -> None:
            try:
                future.set_result(action())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                future.set_exception(error)
            self._ended(abandoned)

        threading.Thread(target=request_context.carried(act), name="watched", daemon=True).start()
        while not wait([future], _LOOK_SECONDS).done:
            if self._lease.lost.is_set():
                # Perhaps by what this very action records: then it is about to return.
                wait([future], _LAST_LOOK_SECONDS)
                if self._leave_behind(future, abandoned):
                    raise Fenced
                continue
            is_over = self.grace_period_over() or self._is_over(patience, since)
            if is_over and self._leave_behind(future, abandoned):
                raise RetryExhausted(
                    "the artifact store or the database does not answer",
                    is_full=False,
                    otherwise=FailureReason.INTERNAL,
                )
        return future.result()

    def _leave_behind(self, future: Future[T], abandoned: threading.Event) -> bool:
        """Whether nobody waits for that action any more; not where it has just come to its end."""
        with self._lock:
            if future.done():
                return False
            abandoned.set()
            self._behind += 1
            return True

    def _ended(self, abandoned: threading.Event) -> None:
        with self._lock:
            if not abandoned.is_set():
                return
            self._behind -= 1
            last, self._last = (None, self._last) if self._behind else (self._last, None)
        if last is not None:
            with contextlib.suppress(Unavailable):
                last()
