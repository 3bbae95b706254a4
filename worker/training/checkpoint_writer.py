"""When checkpoints are written, and what becomes of those that the disk has no room for."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.domain.events import CheckpointEvent
from worker.runtime.disk_errors import is_full
from worker.runtime.disk_full import DiskSpace
from worker.runtime.events import Reporter, file_entry
from worker.training import checkpoints
from worker.training.checkpoints import LoopState
from worker.training.results import validation_at

FIRST_PAUSE = 10.0
LONGEST_PAUSE = 120.0
"""Seconds between two tries while the disk is full: doubled from one to the other. A try writes
until it fails, which takes space and time from everybody on the machine."""


class Saver:
    """Writes one run's checkpoints below `directory`, each announced when it is complete."""

    def __init__(self, directory: Path, reporter: Reporter, space: DiskSpace) -> None:
        self.saved: int | None = None
        """The step of the last checkpoint of this process."""
        self._directory = directory
        self._reporter = reporter
        self._space = space
        self._pause = FIRST_PAUSE
        self._owed_at: float | None = None

    @property
    def is_owed(self) -> bool:
        """Whether a checkpoint found no room, and it is time to try again."""
        return self._owed_at is not None and time.monotonic() >= self._owed_at

    def save(self, state: LoopState, epoch: float, **content: Any) -> None:
        """Write and announce it. Raises as checkpoints.write does, which takes `content`."""
        name = f"checkpoint-{state.step}"
        metrics = validation_at(state.log_history, state.step)
        metrics.pop("epoch", None)
        directory = self._directory / "checkpoints" / name
        checkpoints.write(directory, state=state, **content)
        self.saved = state.step
        self._owed_at, self._pause = None, FIRST_PAUSE
        self._space.report_free()
        self._reporter.emit(
            CheckpointEvent,
            step=state.step,
            epoch=epoch,
            path=f"checkpoints/{name}",
            files=[file_entry(path, directory) for path in sorted(directory.iterdir())],
            metrics=metrics,
            best_step=state.best_step,
        )

    def unless_full(self, step: int, save: Callable[[], None]) -> bool:
        """Call `save`; False where the disk is full, and the checkpoint is owed from then on."""
        try:
            save()
        except Exception as error:
            if not is_full(error):
                raise
            self._space.report_full(f"checkpoint-{step}")
            self._owed_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return False
        return True
