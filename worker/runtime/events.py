"""What a program tells its supervisor: lines in events.jsonl, and whether it was told to stop."""

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

    Invariant: the file is a sequence of complete JSON lines with seq 1, 2, 3 …, but for a torn last
    line after a power cut, which the next Reporter on the file cuts off before it goes on counting.
    Lines that a full disk has no room for wait in memory and are written before the next one.
    """

    def __init__(self, path: Path) -> None:
        written = path.read_bytes() if path.exists() else b""
        whole = written[: written.rfind(b"\n") + 1]
        if len(whole) != len(written):
            os.truncate(path, len(whole))
        self._seq = whole.count(b"\n")
        self._lines = AppendLog(path)
        self._turn = threading.RLock()
        self.is_continued = self._seq > 0
        """Whether a program has spoken in this file before."""

    def emit(self, kind: Any, **fields: Any) -> None:
        """Validate and append one event. Raises OSError for what is not for lack of space."""
        with self._turn:
            event: EventLine = kind(seq=self._seq + 1, time=datetime.now(UTC), **fields)
            self._seq += 1
            self._lines.append(event.model_dump_json().encode() + b"\n")

    def flush(self) -> None:
        """Write the lines that wait. Raises OSError (ENOSPC, EDQUOT) where there is no room."""
        with self._turn:
            self._lines.flush()

    def block_other_threads(self) -> None:
        """From here on no other thread can say anything: it waits for ever."""
        self._turn.acquire()

    def phase(self, phase: Phase) -> None:
        self.emit(PhaseEvent, phase=phase)

    def warn(self, code: str, detail: str) -> None:
        self.emit(WarningEvent, code=code, detail=detail)

    def log(self, message: str) -> None:
        self.emit(LogEvent, message=message)


class Stopped(BaseException):
    """The program was told to stop. Not an Exception: no library may swallow it."""


class StopSignal:
    """Whether TERM arrived, and where it takes effect.

    `at_once`, and not `deferred` further in, the signal raises `Stopped`, as there is nothing to
    save. Elsewhere only `requested` becomes true, and the code there ends at its next safe point.
    """

    def __init__(self) -> None:
        self.requested = False
        self._depth = 1

    def on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self.requested = True
        if not self._depth:
            raise Stopped

    @contextmanager
    def at_once(self) -> Iterator[None]:
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
        """Raise `Stopped` if the signal came: a library may have swallowed the first one."""
        if self.requested:
            raise Stopped


def file_entry(path: Path, root: Path) -> FileEntry:
    """Size in bytes and SHA-256 of a finished file, named relative to `root`."""
    return FileEntry(
        path=path.relative_to(root).as_posix(), size=path.stat().st_size, sha256=sha256_of(path)
    )
