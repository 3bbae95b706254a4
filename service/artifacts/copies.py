"""Local copies of a bucket's files, for readers that need a path, such as Parquet's."""

import contextlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from service.artifacts.files import StoredFile
from service.artifacts.temporary import COPIES, TemporaryFolder

LIMIT = 1 << 30
"""Bytes that unused copies may take together."""

Fetch = Callable[[str, Path, StoredFile | None], None]


class _Copy:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.readers = 1


class LocalCopies:
    """Removed with the process. A file under a key never changes, so a copy stays valid.

    The least recently used ones are removed once all take more than `limit`.
    """

    def __init__(self, fetch: Fetch, limit: int = LIMIT) -> None:
        """`fetch` copies the file under a key to a path and verifies it; `of` raises its errors."""
        self._fetch = fetch
        self._limit = limit
        self._lock = threading.Lock()
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._folder: Path | None = None
        self._count = 0

    @contextlib.contextmanager
    def of(self, key: str, expected: StoredFile | None) -> Iterator[Path]:
        copy = self._existing(key) or self._make(key, expected)
        try:
            yield copy.path
        finally:
            with self._lock:
                copy.readers -= 1
                self._shrink()

    def _existing(self, key: str) -> _Copy | None:
        with self._lock:
            copy = self._copies.get(key)
            if copy is not None:
                copy.readers += 1
                self._copies.move_to_end(key)
            return copy

    def _make(self, key: str, expected: StoredFile | None) -> _Copy:
        with self._lock:
            if self._folder is None:
                folder = TemporaryFolder(COPIES)
                self._folder = folder.path
                weakref.finalize(self, folder.remove)
            self._count += 1
            path = self._folder / str(self._count)
        try:
            self._fetch(key, path, expected)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        with self._lock:
            copy = self._copies.get(key)
            if copy is None:
                copy = self._copies[key] = _Copy(path)
            else:  # another thread was faster
                path.unlink()
                copy.readers += 1
            return copy

    def _shrink(self) -> None:
        total = sum(copy.size for copy in self._copies.values())
        for key, copy in list(self._copies.items()):
            if total <= self._limit:
                return
            if copy.readers == 0:
                copy.path.unlink(missing_ok=True)
                del self._copies[key]
                total -= copy.size
