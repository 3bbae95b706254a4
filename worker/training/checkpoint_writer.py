"""Writing of checkpoints, with retries while the disk is full."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.domain.events import CheckpointEvent
from service.domain.job import checkpoint_path
from worker.runtime.disk_errors import is_full
from worker.runtime.disk_full import DiskSpace
from worker.runtime.events import Reporter, file_entry
from worker.training import checkpoints
from worker.training.checkpoints import LoopState
from worker.training.results import validation_at

FIRST_RETRY_SECONDS = 10.0
MAX_RETRY_SECONDS = 120.0
"""Seconds between two attempts while the disk is full: doubled after each failure. An attempt
writes until it fails, which takes space and time from everybody on the machine."""


class CheckpointWriter:
    """Writes one run's checkpoints below `directory` and announces each when it is complete."""

    def __init__(self, directory: Path, reporter: Reporter, space: DiskSpace) -> None:
        self.last_step: int | None = None
        """The step of the last checkpoint of this process."""
        self._directory = directory
        self._reporter = reporter
        self._space = space
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._retry_at: float | None = None

    @property
    def retry_due(self) -> bool:
        """True if a checkpoint failed for a full disk and the time to retry has come."""
        return self._retry_at is not None and time.monotonic() >= self._retry_at

    def save(self, state: LoopState, epoch: float, **content: Any) -> None:
        """Write and announce a checkpoint. `content` and errors are those of checkpoints.write."""
        path = checkpoint_path(state.step)
        metrics = validation_at(state.log_history, state.step)
        metrics.pop("epoch", None)
        directory = self._directory / path
        checkpoints.write(directory, state=state, **content)
        self.last_step = state.step
        self._retry_at, self._retry_seconds = None, FIRST_RETRY_SECONDS
        self._space.report_free()
        self._reporter.emit(
            CheckpointEvent,
            step=state.step,
            epoch=epoch,
            path=path,
            files=[file_entry(file, directory) for file in sorted(directory.iterdir())],
            metrics=metrics,
            best_step=state.best_step,
        )

    def save_unless_full(self, step: int, save: Callable[[], None]) -> bool:
        """Call `save`; return False, and schedule a retry, if the disk is full."""
        try:
            save()
        except Exception as error:
            if not is_full(error):
                raise
            self._space.report_full(f"checkpoint-{step}")
            self._retry_at = time.monotonic() + self._retry_seconds
            self._retry_seconds = min(2 * self._retry_seconds, MAX_RETRY_SECONDS)
            return False
        return True
