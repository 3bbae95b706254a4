"""Whether a program still makes progress: the second kind of liveness, beside the lease."""

import json
import shutil
import time
from pathlib import Path

from service.domain.states import Phase
from service.settings import Settings

_ROOM_TO_SPEAK = 1 << 16
"""Bytes that must be free on the disk before silence means anything."""


class StallDetector:
    """Listens to events.jsonl. Nothing is uploaded or asked of a database here, so it never waits.

    Each line is a sign of life. What the last one announced says how long the next may take.
    """

    def __init__(self, events: Path, settings: Settings) -> None:
        self._events = events
        self._limits = {
            "start-up": settings.startup_limit_seconds,
            "step": settings.step_limit_seconds,
            "checkpoint": settings.checkpoint_limit_seconds,
        }
        # An earlier start in the same directory has said what is there already.
        self._offset = events.stat().st_size if events.exists() else 0
        self._looked = time.monotonic()
        # What counts at most between two looks: a machine that slept, or a supervisor that was
        # stopped, must not take that time for its program's silence.
        self._longest_look = max(2.0, 4 * settings.poll_seconds)
        self._quiet = 0.0
        self._activity = "start-up"
        self.phase = Phase.STARTING

    def overdue(self) -> str | None:
        """What took too long, in words; None while the program is within its limits."""
        now = time.monotonic()
        self._quiet += min(now - self._looked, self._longest_look)
        self._looked = now
        if self._listen():
            self._quiet = 0.0
        limit = self._limits[self._activity]
        if self._quiet <= limit:
            return None
        if shutil.disk_usage(self._events.parent).free < _ROOM_TO_SPEAK:
            self._quiet = 0.0  # it cannot say anything, though it may well be working
            return None
        return (
            f"the program said nothing for {limit:g} s while {self.phase} (the limit for a "
            f"{self._activity}, FAIRTUNE_{self._activity.upper().replace('-', '')}_LIMIT_SECONDS)"
        )

    def _listen(self) -> bool:
        """Take the whole lines that were added; whether there were any."""
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
