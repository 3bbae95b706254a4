"""Detection of a program that makes no progress: the second liveness check, beside the lease."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from service.domain.states import Phase

_MIN_FREE_BYTES = 1 << 16
"""Space on the disk below which a program may be unable to write events."""


@dataclass(frozen=True, slots=True)
class StallLimits:
    """Seconds without an event after which a program counts as stalled, by activity."""

    startup: float
    step: float
    checkpoint: float


class StallDetector:
    """Follows events.jsonl; accesses no database and no store, so it never blocks.

    Each line is a sign of life, and determines how long the next one may take.
    """

    def __init__(self, events: Path, limits: StallLimits, poll_seconds: float) -> None:
        self._events = events
        self._limits = {
            "start-up": limits.startup,
            "step": limits.step,
            "checkpoint": limits.checkpoint,
        }
        # The file's earlier lines are those of an earlier start in the same directory.
        self._offset = events.stat().st_size if events.exists() else 0
        self._checked_at = time.monotonic()
        # Cap on the time counted between two checks: time in which the machine slept, or the
        # supervisor was stopped, is not the program's silence.
        self._max_gap = max(2.0, 4 * poll_seconds)
        self._silence = 0.0
        self._activity = "start-up"
        self.phase = Phase.STARTING

    def check(self) -> str | None:
        """Return a description of the stall; None while the program is within its limits."""
        now = time.monotonic()
        self._silence += min(now - self._checked_at, self._max_gap)
        self._checked_at = now
        if self._read_new_lines():
            self._silence = 0.0
        limit = self._limits[self._activity]
        if self._silence <= limit:
            return None
        if shutil.disk_usage(self._events.parent).free < _MIN_FREE_BYTES:
            self._silence = 0.0  # it cannot write events, but may well be working
            return None
        return (
            f"the program reported no progress for {limit:g} s while {self.phase} (the limit for a "
            f"{self._activity}, FAIRTUNE_{self._activity.upper().replace('-', '')}_LIMIT_SECONDS)"
        )

    def _read_new_lines(self) -> bool:
        """Read the whole lines added since the last call; return True if there were any."""
        if not self._events.exists() or self._events.stat().st_size <= self._offset:
            return False
        with self._events.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        if not newline:
            return False
        self._offset += len(whole) + 1
        for raw in whole.split(b"\n"):
            line = json.loads(raw)
            if line.get("type") == "phase":
                self.phase = Phase(line["phase"])
            if self.phase in (Phase.STARTING, Phase.LOADING):
                self._activity = "start-up"
            elif line.get("saving") or self.phase in (Phase.SAVING, Phase.REPORTING):
                self._activity = "checkpoint"
            else:
                self._activity = "step"
        return True
