"""Measurement of time and memory inside the measured process."""

import sys
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")


def status_bytes(text: str, name: str) -> int:
    """Return a size in /proc/PID/status, in bytes. Raises KeyError."""
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


class Watch:
    """Records the end of the imports and each step, and returns the process's result.

    A step's time is from the end of the step before, and so includes the creation of its batch.
    """

    def __init__(self, began: float) -> None:
        self._began = began
        self._imports = 0
        self._first: float | None = None
        self._before_training = 0
        self._ends: list[float] = []
        self.losses: list[float] = []
        """Nats per target token, one a step."""
        self.notes: list[str] = []
        """What the system said on the way that a reader of the figures should know."""
        self.extra: dict[str, Any] = {}

    def imported(self) -> None:
        """Call when every library is there and nothing of the model is."""
        self._imports = status_bytes(_STATUS.read_text(), "VmRSS")

    def step_begins(self) -> None:
        if self._first is None:
            self._first = time.monotonic()
            self._before_training = status_bytes(_STATUS.read_text(), "VmHWM")
            _reset_peak()

    def step_ends(self) -> None:
        self._ends.append(time.monotonic())

    def result(self, samples: Iterable[tuple[list[int], int]]) -> dict[str, Any]:
        """`samples` are those trained on, in order: the parent compares them."""
        assert self._first is not None
        training = status_bytes(_STATUS.read_text(), "VmHWM")
        marks = [self._first, *self._ends]
        return {
            "startup_seconds": self._first - self._began,
            "seconds": [end - start for start, end in pairwise(marks)],
            "losses": self.losses,
            "host_peak": max(training, self._before_training),
            "host_peak_training": training,
            "host_imports": self._imports,
            "device_peak": _device_peak(),
            "notes": self.notes,
            "samples": [list(ids) for ids, _ in samples],
            **self.extra,
        }


def _reset_peak() -> None:
    """Begin VmHWM anew (proc(5), clear_refs 5), to tell loading from training."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # some containers: then both figures are the whole process's
        return


def _device_peak() -> int | None:
    """Bytes that the allocator held at most on the GPU; None without one."""
    torch = sys.modules["torch"]
    peak: int | None = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return peak
