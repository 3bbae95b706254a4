"""Whether bytes still move between this worker and the artifact store."""

import time

from service.artifacts import Moved


class Movement:
    """One attempt's. Any thread may report, and any may look.

    Invariant: `at` moves only when a file has come further than it ever had. A store that takes
    half of a file again and again, because its disk is full, say, is making no progress.
    """

    def __init__(self) -> None:
        self._furthest: dict[str, int] = {}
        self.at = time.monotonic()
        """When a byte last came further, by the monotonic clock."""

    def of(self, key: str) -> Moved:
        """What is to be told how far the file under that key of the store has come."""

        def moved(done: int) -> None:
            if done > self._furthest.get(key, 0):
                self._furthest[key] = done
                self.at = time.monotonic()

        return moved
