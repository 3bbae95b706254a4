"""A program's side of its supervision: events in events.jsonl, and the stop signal."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from service.domain.digests import sha256_of
from service.domain.events import FileEntry, LogEvent, PhaseEvent, WarningEvent
from service.domain.states import Phase
from worker.runtime.append_log import AppendLog


class EventLine(Protocol):
    """An event of service.domain.events."""

    def model_dump_json(self) -> str: ...


class Reporter:
    """Appends numbered events to one file, whole lines only, each visible when `emit` returns.

    Invariant: the file is a sequence of complete JSON lines with seq 1, 2, 3 …, except for a torn
    last line after a power cut, which the next Reporter of the file removes before it continues.
    Lines for which a full disk has no space wait in memory and are written before the next one.
    """

    def __init__(self, path: Path) -> None:
        content = path.read_bytes() if path.exists() else b""
        complete = content[: content.rfind(b"\n") + 1]
        if len(complete) != len(content):
            os.truncate(path, len(complete))
        self._seq = complete.count(b"\n")
        self._lines = AppendLog(path)
        self._lock = threading.RLock()
        self.is_continued = self._seq > 0
        """True if the file has events of an earlier start."""

    def emit(self, kind: Any, **fields: Any) -> None:
        """Validate and append an event. Raises OSError unless the cause is a full disk."""
        with self._lock:
            event: EventLine = kind(seq=self._seq + 1, time=datetime.now(UTC), **fields)
            self._seq += 1
            self._lines.append(event.model_dump_json().encode() + b"\n")

    def flush(self) -> None:
        """Write the waiting lines. Raises OSError (ENOSPC, EDQUOT) if the disk is full."""
        with self._lock:
            self._lines.flush()

    def block_other_threads(self) -> None:
        """From here on `emit` blocks forever in every other thread."""
        self._lock.acquire()

    def phase(self, phase: Phase) -> None:
        self.emit(PhaseEvent, phase=phase)

    def warn(self, code: str, detail: str) -> None:
        self.emit(WarningEvent, code=code, detail=detail)

    def log(self, message: str) -> None:
        self.emit(LogEvent, message=message)


class Stopped(BaseException):
    """A stop was requested. Not an Exception, so that no library swallows it."""


class StopSignal:
    """The request to stop (TERM), and the places where it takes effect.

    Inside `immediate`, unless inside a nested `deferred`, the signal raises `Stopped`, since there
    is nothing to save. Elsewhere it only sets `requested`: the code ends at its next safe point.
    """

    def __init__(self) -> None:
        self.requested = False
        self._depth = 1

    def on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self.requested = True
        if not self._depth:
            raise Stopped

    @contextmanager
    def immediate(self) -> Iterator[None]:
        self._depth -= 1
        try:
            self.check()
            yield
        finally:
            self._depth += 1

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def check(self) -> None:
        """Raise `Stopped` if the signal arrived: a library may have swallowed the first one."""
        if self.requested:
            raise Stopped


def file_entry(path: Path, root: Path) -> FileEntry:
    """Return size in bytes and SHA-256 of a finished file, its path relative to `root`."""
    return FileEntry(
        path=path.relative_to(root).as_posix(), size=path.stat().st_size, sha256=sha256_of(path)
    )
