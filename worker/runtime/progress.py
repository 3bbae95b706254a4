"""How far a program has come that does one thing after another, said every other second."""

import time

from service.domain.events import Progress
from worker.runtime.events import Reporter

PROGRESS_INTERVAL_SECONDS = 2.0
"""Seconds between signs of life."""


class ProgressTracker:
    """`total` is the sum of the parts' steps, as far as it is known."""

    def __init__(self, reporter: Reporter, total: int) -> None:
        self.total = total
        self.done = 0
        self._reporter = reporter
        self._spoke = 0.0
        self._begun = time.monotonic()
        self._first = self._end = 0
        self._expected: float | None = None
        self._after: float | None = None

    def part(self, steps: int, expected: float | None, after: float | None) -> None:
        """So many steps of one kind begin. Seconds they are `expected` to take, for as long as none
        of them is done, and what comes `after` them; None where that is not known.
        """
        self._begun = time.monotonic()
        self._first, self._end = self.done, self.done + steps
        self._expected, self._after = expected, after
        self.say()

    @property
    def took(self) -> float:
        """Seconds since the part began."""
        return time.monotonic() - self._begun

    def left(self) -> float | None:
        """Seconds until the end, by the part's own pace; None where that is not known."""
        done = self.done - self._first
        took = self.took
        if self._after is None:
            return None
        if done > 0:
            return took / done * (self._end - self.done) + self._after
        return None if self._expected is None else max(0.0, self._expected - took) + self._after

    def at(self, done: int) -> None:
        """Take note, and every other second say so."""
        self.done = done
        if time.monotonic() - self._spoke > PROGRESS_INTERVAL_SECONDS:
            self.say()

    def next(self) -> None:
        self.at(self.done + 1)

    def say(self) -> None:
        from worker.runtime.gpu import peak_gpu_memory

        self._spoke = time.monotonic()
        self._reporter.emit(
            Progress,
            step=self.done,
            total_steps=self.total,
            epoch=0,
            eta_seconds=self.left(),
            gpu_memory_bytes=peak_gpu_memory(),
        )
