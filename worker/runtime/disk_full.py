"""Writing below the job directory while its disk is full.

A full disk never ends a training. What could not be written is kept in memory or written later,
when there is space again; only at the end, with nothing left to do meanwhile, does a program wait.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from worker.runtime.disk_errors import is_full
from worker.runtime.events import Reporter, StopSignal

T = TypeVar("T")

MAX_WAIT_SECONDS = 600.0
"""Longest wait for space of a program that can do nothing else."""

_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 10.0
_POLL_SECONDS = 0.2


class DiskSpace:
    """State of the job directory's disk, shared by all parts of one program."""

    def __init__(self, reporter: Reporter, stop: StopSignal) -> None:
        self._reporter = reporter
        self._stop = stop
        self._is_full = False

    def report_full(self, what: str) -> None:
        """Note that there was no space for `what`; warn if it is the first time in this outage."""
        if not self._is_full:
            self._is_full = True
            self._reporter.warn(
                "no_space",
                f"The disk of the job directory is full: {what} could not be written. Writing is "
                "retried; no training progress is lost meanwhile.",
            )

    def report_free(self) -> None:
        """Note that a write succeeded: the next failure starts another outage."""
        self._is_full = False

    def write_with_retry(self, what: str, write: Callable[[], T], *, warn: bool = True) -> T:
        """Call `write`, from its beginning each time, until there is space for it.

        `warn` is false after the last event. Raises Stopped if TERM arrived meanwhile,
        ProgramFailure(no_space) after MAX_WAIT_SECONDS, and any other exception of `write`.
        """
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                result = write()
            except Exception as error:
                if not is_full(error):
                    raise
                self._stop.check()
                if warn:
                    self.report_full(what)
                if time.monotonic() >= deadline:
                    raise ProgramFailure(
                        FailureReason.NO_SPACE,
                        f"The worker's disk is full: {what} could not be written for "
                        f"{MAX_WAIT_SECONDS / 60:g} minutes.",
                    ) from error
                self._pause(min(pause, deadline - time.monotonic()))
                pause = min(2 * pause, _MAX_PAUSE_SECONDS)
            else:
                self.report_free()
                return result

    def _pause(self, seconds: float) -> None:
        """Sleep, but return early when a stop is requested: the signal does not end a sleep."""
        deadline = time.monotonic() + seconds
        while not self._stop.requested and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(_POLL_SECONDS, left))
