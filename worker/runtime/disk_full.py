"""A full disk under the job directory: how it is recognised, and what is done about it.

Nothing that a full disk can do ends a training. What could not be written is kept or owed, and
written when there is room again; only at the end, when there is nothing left to do meanwhile, does
a program wait.
"""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from worker.runtime.events import Reporter, StopSignal

T = TypeVar("T")

MAX_WAIT_SECONDS = 600.0
"""Seconds for which a program that can do nothing else waits for space."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SAID = (
    "No space left on device",
    "Disk quota exceeded",
    *(f"(os error {number})" for number in _FULL),
)
_LONGEST_PAUSE = 10.0
_BLINK = 0.2


def is_full(error: BaseException) -> bool:
    """Whether the error says that a disk is full, or a quota used up.

    safetensors has an exception of its own for what its Rust code meets, without an errno.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(said in str(error) for said in _SAID)


class DiskSpace:
    """What the parts of one program know together of its disk."""

    def __init__(self, reporter: Reporter, stop: StopSignal) -> None:
        self._reporter = reporter
        self._stop = stop
        self._is_full = False

    def report_full(self, what: str) -> None:
        """Take note that `what` found no room; the first time in an outage with a warning."""
        if not self._is_full:
            self._is_full = True
            self._reporter.warn(
                "no_space",
                f"The disk of the job directory is full: {what} could not be written. It is tried "
                "again, and nothing that was learned is lost meanwhile.",
            )

    def report_free(self) -> None:
        """Take note that there was room: the next lack is another outage."""
        self._is_full = False

    def write_with_retry(self, what: str, write: Callable[[], T], *, warn: bool = True) -> T:
        """Call `write` until it finds room; each call begins anew. `warn` is false at the very end.

        Raises Stopped where TERM came meanwhile, ProgramFailure(no_space) when the patience is at
        its end, and whatever else `write` raises.
        """
        until = time.monotonic() + MAX_WAIT_SECONDS
        pause = 0.5
        while True:
            try:
                written = write()
            except Exception as error:
                if not is_full(error):
                    raise
                self._stop.check()
                if warn:
                    self.report_full(what)
                if time.monotonic() >= until:
                    raise ProgramFailure(
                        FailureReason.NO_SPACE,
                        f"The worker's disk is full: {what} could not be written for "
                        f"{MAX_WAIT_SECONDS / 60:g} minutes.",
                    ) from error
                self._pause(min(pause, until - time.monotonic()))
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self.report_free()
                return written

    def _pause(self, seconds: float) -> None:
        """Wait, but not when asked to stop: the signal alone does not end a sleep."""
        until = time.monotonic() + seconds
        while not self._stop.requested and (left := until - time.monotonic()) > 0:
            time.sleep(min(_BLINK, left))
