"""An append-only file of whole records, which a full disk does not tear."""

import errno
import os
from collections import deque
from pathlib import Path

from worker.runtime.disk_errors import is_full


class AppendLog:
    """Invariant: the file holds its earlier content followed by the records in order.

    Each record is written whole or waits in memory. A missing file is created with the first
    record, as is its directory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._end = path.stat().st_size if path.exists() else 0
        self._unwritten: deque[tuple[int, bytes]] = deque()
        """Records that may not be written yet, each with its offset in the file."""

    def append(self, record: bytes) -> None:
        """Add a record and write what fits on the disk. Raises OSError unless the disk is full."""
        self._unwritten.append((self._end, record))
        self._end += len(record)
        try:
            self.flush()
        except OSError as error:
            if not is_full(error):
                raise

    def flush(self) -> None:
        """Write all waiting records. Raises OSError (ENOSPC, EDQUOT) if the disk is full.

        A signal's exception may interrupt this at any line, so the file's own size says how much
        of a record is written.
        """
        if not self._unwritten:
            return
        if self._file is None:
            self._path.parent.mkdir(exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._file = os.open(self._path, flags, 0o644)
        while self._unwritten:
            start, record = self._unwritten[0]
            size = os.fstat(self._file).st_size
            if size < start + len(record):
                if size > start:
                    os.ftruncate(self._file, start)
                # A single call, so that neither a signal nor another thread can split the record.
                if os.write(self._file, record) != len(record):
                    os.ftruncate(self._file, start)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            self._unwritten.popleft()
