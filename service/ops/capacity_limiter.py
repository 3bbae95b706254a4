"""A limit for CPU-heavy requests: some run at once, a few wait, others are refused."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.domain.errors import Busy
from service.store import abandonment

_CHECK_SECONDS = 0.2


class CapacityLimiter:
    """Invariant: at most `at_once` callers are inside `acquire` and `waiting` before it.

    So waiting does not use up the threads that answer all other requests.
    """

    def __init__(self, what: str, at_once: int, waiting: int, seconds: float) -> None:
        """`what` is a plural, for the refusal of callers that wait longer than `seconds`."""
        self.what = what
        self.seconds = seconds
        self._admitted = threading.BoundedSemaphore(at_once + waiting)
        self._running = threading.BoundedSemaphore(at_once)

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Raises Busy."""
        refusal = Busy(
            f"the limit of concurrent {self.what} is reached; retry in {Busy.retry_after} s"
        )
        if not self._admitted.acquire(blocking=False):
            raise refusal
        try:
            self._wait_for_turn(refusal)
            try:
                yield
            finally:
                self._running.release()
        finally:
            self._admitted.release()

    def _wait_for_turn(self, refusal: Busy) -> None:
        """Raises Busy, and Abandoned if the client disconnects meanwhile."""
        deadline = time.monotonic() + self.seconds
        while not self._running.acquire(timeout=min(_CHECK_SECONDS, self.seconds)):
            abandonment.check()
            if time.monotonic() > deadline:
                raise refusal
