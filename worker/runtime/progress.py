"""Progress events of a program that works through a number of steps."""

import time

from service.domain.events import Progress
from worker.runtime.events import Reporter

PROGRESS_INTERVAL_SECONDS = 2.0
"""Seconds between two progress events."""


class ProgressTracker:
    """Counts steps and emits progress events; `total` is the number of steps known so far."""

    def __init__(self, reporter: Reporter, total: int) -> None:
        self.total = total
        self.done = 0
        self._reporter = reporter
        self._emitted_at = 0.0
        self._started_at = time.monotonic()
        self._first = self._end = 0
        self._expected_seconds: float | None = None
        self._seconds_after: float | None = None

    def begin(
        self, steps: int, expected_seconds: float | None, seconds_after: float | None
    ) -> None:
        """Begin a part of `steps` steps.

        `expected_seconds` is the estimate for the part until one of its steps is done, and
        `seconds_after` that for what follows it; None if unknown.
        """
        self._started_at = time.monotonic()
        self._first, self._end = self.done, self.done + steps
        self._expected_seconds, self._seconds_after = expected_seconds, seconds_after
        self.emit()

    @property
    def elapsed(self) -> float:
        """Seconds since the part began."""
        return time.monotonic() - self._started_at

    def seconds_left(self) -> float | None:
        """Return the estimated seconds until the end, by the part's own pace; None if unknown."""
        done = self.done - self._first
        elapsed = self.elapsed
        if self._seconds_after is None:
            return None
        if done > 0:
            return elapsed / done * (self._end - self.done) + self._seconds_after
        if self._expected_seconds is None:
            return None
        return max(0.0, self._expected_seconds - elapsed) + self._seconds_after

    def count(self, done: int) -> None:
        """Set the number of steps done."""
        self.done = done

    def update(self, done: int) -> None:
        """Set the number of steps done; emit an event if the last one is two seconds old."""
        self.count(done)
        if time.monotonic() - self._emitted_at > PROGRESS_INTERVAL_SECONDS:
            self.emit()

    def advance(self, steps: int = 1) -> None:
        """Add to the number of steps done."""
        self.update(self.done + steps)

    def emit(self) -> None:
        """Emit a progress event now."""
        from worker.runtime.gpu import peak_gpu_memory

        self._emitted_at = time.monotonic()
        self._reporter.emit(
            Progress,
            step=self.done,
            total_steps=self.total,
            epoch=0,
            eta_seconds=self.seconds_left(),
            gpu_memory_bytes=peak_gpu_memory(),
        )


class PhaseRows:
    """Rows of a phase that scores several splits; `share` is the completed part of all."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._before = self._done = 0

    @property
    def share(self) -> float | None:
        """Completed share from 0 to 1; None without rows."""
        return min(1.0, self._done / self._total) if self._total else None

    def count(self, done: int) -> None:
        """Set the number of rows done of the present split."""
        self._done = self._before + done

    def end_split(self, rows: int) -> None:
        self._before += rows
        self._done = self._before
