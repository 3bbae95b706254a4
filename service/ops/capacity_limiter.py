"""Work that takes a processor for long: some at once, a few wait, the rest come again later."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from service.domain.errors import Busy


class Turns:
    """Invariant: never more than `at_once` callers are inside `taken`, nor more than `waiting`
    before it: the threads that answer all other requests are not used up by waiting.
    """

    def __init__(self, what: str, at_once: int, waiting: int, seconds: float) -> None:
        """`what`, in the plural, is for the caller; who waits longer than `seconds` is refused."""
        self.what = what
        self.seconds = seconds
        self._line = threading.BoundedSemaphore(at_once + waiting)
        self._turns = threading.BoundedSemaphore(at_once)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Raises Busy."""
        refusal = Busy(f"too many {self.what} are being made; try again in {Busy.retry_after} s")
        if not self._line.acquire(blocking=False):
            raise refusal
        try:
            if not self._turns.acquire(timeout=self.seconds):
                raise refusal
            try:
                yield
            finally:
                self._turns.release()
        finally:
            self._line.release()
