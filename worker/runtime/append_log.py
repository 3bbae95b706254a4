"""A file to which whole records are appended, and which a full disk does not tear."""

import errno
import os
from collections import deque
from pathlib import Path


class AppendLog:
    """Invariant: the file is what it held before and then the records in their order.

    Each is there whole, or waits in memory. A file that does not exist is made with the first one,
    and its directory too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._end = path.stat().st_size if path.exists() else 0
        self._waiting: deque[tuple[int, bytes]] = deque()
        """Records not known to be written, each with the offset at which it begins."""

    def append(self, record: bytes) -> None:
        """Add a record, and write what the disk has room for. Raises OSError for other faults."""
        self._waiting.append((self._end, record))
        self._end += len(record)
        try:
            self.flush()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise

    def flush(self) -> None:
        """Write all that waits. Raises OSError (ENOSPC, EDQUOT) where there is no room for it.

        A signal's exception may break in anywhere: how far the file had come is read from it.
        """
        if not self._waiting:
            return
        if self._file is None:
            self._path.parent.mkdir(exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._file = os.open(self._path, flags, 0o644)
        while self._waiting:
            start, record = self._waiting[0]
            size = os.fstat(self._file).st_size
            if size < start + len(record):
                if size > start:
                    os.ftruncate(self._file, start)
                # One call, so that neither a signal nor another thread comes between two halves.
                if os.write(self._file, record) != len(record):
                    os.ftruncate(self._file, start)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            self._waiting.popleft()
