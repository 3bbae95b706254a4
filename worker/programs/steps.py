"""How far a program has come that does one thing after another, said every other second."""

import time

from service.domain.events import Progress
from worker.programs.reporter import Reporter

BETWEEN_PROGRESS = 2.0
"""Seconds between signs of life."""


class Steps:
    def __init__(self, reporter: Reporter, total: int) -> None:
        self.total = total
        self.done = 0
        self._reporter = reporter
        self._spoke = 0.0

    def at(self, done: int) -> None:
        """Take note, and every other second say so."""
        self.done = done
        if time.monotonic() - self._spoke > BETWEEN_PROGRESS:
            self.say()

    def next(self) -> None:
        self.at(self.done + 1)

    def say(self) -> None:
        from worker.training.gpu import memory_held

        self._spoke = time.monotonic()
        self._reporter.emit(
            Progress,
            step=self.done,
            total_steps=self.total,
            epoch=0,
            gpu_memory_bytes=memory_held(),
        )
