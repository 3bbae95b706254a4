"""Progress of file transfers between this worker and the artifact store."""

import time
from collections import Counter

from service.artifacts import ProgressCallback

_MAX_RESTARTS = 5
"""Attempts at a file in which its transfer from the beginning counts as progress."""


class TransferProgress:
    """Transfers of one attempt. Any thread may report, and any may read.

    Invariant: `last_progress` advances only when a file is transferred further than before, or from
    its beginning after a failure, the latter a few times only. A store that accepts half of a file
    again and again, for example because its disk is full, makes no progress.
    """

    def __init__(self) -> None:
        self._furthest: dict[str, int] = {}
        self._attempts: Counter[str] = Counter()
        self.last_progress = time.monotonic()
        """Monotonic time of the last progress."""

    def track(self, key: str) -> ProgressCallback:
        """Return the callback for a new transfer of the file under `key`: it takes bytes so far."""
        self._attempts[key] += 1
        if self._attempts[key] <= _MAX_RESTARTS:
            self._furthest.pop(key, None)

        def moved(done: int) -> None:
            if done > self._furthest.get(key, 0):
                self._furthest[key] = done
                self.last_progress = time.monotonic()

        return moved
