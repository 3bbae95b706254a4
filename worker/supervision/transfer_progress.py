"""Whether bytes still move between this worker and the artifact store."""

import time
from collections import Counter

from service.artifacts import Moved

_TRIES = 5
"""Of a file, in which the way from its beginning counts."""


class Movement:
    """One attempt's. Any thread may report, and any may look.

    Invariant: `at` moves only when a file has come further than it had before; after a failure from
    its beginning on, but a few times only. A store that takes half of a file again and again,
    because its disk is full, say, is making no progress.
    """

    def __init__(self) -> None:
        self._furthest: dict[str, int] = {}
        self._tries: Counter[str] = Counter()
        self.at = time.monotonic()
        """When a byte last came further, by the monotonic clock."""

    def of(self, key: str) -> Moved:
        """What is to be told how far the file under that key comes in the try that begins now."""
        self._tries[key] += 1
        if self._tries[key] <= _TRIES:
            self._furthest.pop(key, None)

        def moved(done: int) -> None:
            if done > self._furthest.get(key, 0):
                self._furthest[key] = done
                self.at = time.monotonic()

        return moved
