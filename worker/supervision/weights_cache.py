"""Cache of weights that several jobs use, fetched once.

Many jobs may score one merged model, of gigabytes. A file of a directory store is linked into the
job directory; a file of a bucket is cached on this machine under its SHA-256 and linked from there.
The links are hard links: a job keeps its files whatever happens to those of store and cache.
"""

import contextlib
import errno
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from service.artifacts import ArtifactStore, ProgressCallback, StoredFile
from service.artifacts.files import ignore_progress
from service.domain.digests import sha256_of
from worker.runtime.disk_errors import is_full

_DIRECTORY = ".weights"
"""Name of the cache in the directory of the job directories."""
_STALE_SECONDS = 3600
"""Age after which a partial file must be that of a killed worker."""
_UNUSED_SECONDS = 7 * 86400
"""Time without use after which a file is removed: the model may have been deleted."""


class WeightsCache(NamedTuple):
    """Invariant: a file is stored under its SHA-256, written elsewhere and then renamed.

    It is verified again at every use; a damaged one is removed and fetched again. Several workers
    may share the cache.
    """

    root: Path
    """On the disk of the job directories: a hard link does not cross disks."""
    limit: int
    """Maximum total bytes; the least recently used files are evicted first. 0: no caching."""

    @classmethod
    def in_jobs_dir(cls, jobs_dir: Path, limit: int) -> "WeightsCache":
        """Return the cache beside the job directories."""
        return cls(jobs_dir / _DIRECTORY, limit)

    def provide(
        self,
        store: ArtifactStore,
        key: str,
        target: Path,
        expected: StoredFile,
        moved: ProgressCallback = ignore_progress,
    ) -> None:
        """Provide the store's file at `target`, a new file that must only be read.

        Raises OSError, and DamagedFile if the file is unreadable, missing or not as `expected`.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        source = store.path_of(key)
        if source is None:
            self._provide_cached(store, key, target, expected, moved)
        elif not _link(source, target) or not _is_intact(target, expected):
            store.fetch(key, target, expected, moved)  # which raises the error in question

    def _provide_cached(
        self,
        store: ArtifactStore,
        key: str,
        target: Path,
        expected: StoredFile,
        moved: ProgressCallback,
    ) -> None:
        if expected.size > self.limit:
            store.fetch(key, target, expected, moved)
            return
        cached = self.root / expected.sha256
        if _link_or_copy(cached, target):
            if _is_intact(target, expected):
                with contextlib.suppress(OSError):  # removed meanwhile
                    os.utime(cached)
                return
            cached.unlink(missing_ok=True)
        self.root.mkdir(parents=True, exist_ok=True)
        self._make_room(self.limit - expected.size)
        partial = self.root / f"{uuid.uuid4().hex}.part"
        try:
            store.fetch(key, partial, expected, moved)
            if not _link_or_copy(partial, target):
                raise FileNotFoundError(errno.ENOENT, "was removed while in use", str(partial))
            partial.replace(cached)
        except OSError as error:
            if is_full(error):
                self.clear()  # the next try must not fail because of cached files
            raise
        finally:
            partial.unlink(missing_ok=True)

    def trim(self) -> None:
        """Evict files unused for days, and files beyond the limit. Never raises OSError."""
        with contextlib.suppress(OSError):
            self._make_room(self.limit, time.time() - _UNUSED_SECONDS)

    def clear(self) -> None:
        """Remove all files: the disk is full. Never raises OSError."""
        with contextlib.suppress(OSError):
            self._make_room(0)

    def _make_room(self, max_bytes: int, used_since: float = 0) -> None:
        """Evict the least recently used files until all take `max_bytes` at most."""
        files = []
        for path in self.root.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another worker removed it
                stat = path.stat()
                if path.suffix != ".part":
                    files.append((stat.st_mtime, stat.st_size, path))
                elif time.time() - stat.st_mtime > _STALE_SECONDS:
                    path.unlink()
        total = sum(size for _, size, _ in files)
        for used, size, path in sorted(files):
            if total <= max_bytes and used >= used_since:
                return
            path.unlink(missing_ok=True)
            total -= size


def _link(source: Path, target: Path) -> bool:
    """Make `target` a hard link to `source`, both read-only; return False if that is impossible."""
    try:
        os.link(source, target)
    except OSError:  # missing, on another disk, or on one without hard links
        return False
    with contextlib.suppress(OSError):  # owned by another user
        target.chmod(0o444)
    return True


def _link_or_copy(source: Path, target: Path) -> bool:
    """Make `target` a link to `source`, or else a copy; return False if `source` is missing."""
    if _link(source, target):
        return True
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        return False
    return True


def _is_intact(target: Path, expected: StoredFile) -> bool:
    """Return True if the file is as expected; remove it otherwise."""
    try:
        if StoredFile(target.stat().st_size, sha256_of(target)) == expected:
            return True
    except OSError:  # unreadable
        pass
    target.unlink(missing_ok=True)
    return False
