"""Weights that several jobs need, fetched once.

Many jobs may score one merged model, of gigabytes. A file of a store in a directory is linked into
the job directory; one of a bucket is kept on this machine under its SHA-256, and linked from there.
The links are hard ones: a job keeps its files whatever becomes of the store's or the cache's.
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

_STALE_SECONDS = 3600
"""After which a half that nobody writes to is one that a killed worker left."""
_UNUSED_SECONDS = 7 * 86400
"""After which a file goes: the model may have been deleted."""


class WeightsCache(NamedTuple):
    """Invariant: a file lies under its SHA-256, put there whole, aside and renamed.

    It is compared again whenever it is used; a broken one is removed and fetched anew. Several
    workers may share it.
    """

    root: Path
    """On the disk of the job directories: a hard link does not cross disks."""
    limit: int
    """Bytes of all files together; the longest unused go first. 0: nothing is kept."""

    def lay(
        self,
        store: ArtifactStore,
        key: str,
        target: Path,
        expected: StoredFile,
        moved: ProgressCallback = ignore_progress,
    ) -> None:
        """Have the store's file at `target`, which is not there yet and to be read only.

        Raises OSError, and DamagedFile if the file is not `expected`, unreadable or missing.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        theirs = store.path_of(key)
        if theirs is None:
            self._from_here(store, key, target, expected, moved)
        elif not _linked(theirs, target) or not _is_whole(target, expected):
            store.fetch(key, target, expected, moved)  # which says what is wrong with it

    def _from_here(
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
        kept = self.root / expected.sha256
        if _placed(kept, target):
            if _is_whole(target, expected):
                with contextlib.suppress(OSError):  # gone meanwhile
                    os.utime(kept)
                return
            kept.unlink(missing_ok=True)
        self.root.mkdir(parents=True, exist_ok=True)
        self._make_room(self.limit - expected.size)
        aside = self.root / f"{uuid.uuid4().hex}.part"
        try:
            store.fetch(key, aside, expected, moved)
            if not _placed(aside, target):
                raise FileNotFoundError(errno.ENOENT, "was removed while it was used", str(aside))
            aside.replace(kept)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self.empty()  # the next try shall not fail for what is only kept
            raise
        finally:
            aside.unlink(missing_ok=True)

    def trim(self) -> None:
        """Remove what was not used for days, and what is beyond the limit. Never raises OSError."""
        with contextlib.suppress(OSError):
            self._make_room(self.limit, time.time() - _UNUSED_SECONDS)

    def empty(self) -> None:
        """Remove all that is kept: the disk is full. Never raises OSError."""
        with contextlib.suppress(OSError):
            self._make_room(0)

    def _make_room(self, left: int, used_since: float = 0) -> None:
        """Remove the longest unused files until all take `left` bytes at the most."""
        found = []
        for path in self.root.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another worker was faster
                stat = path.stat()
                if path.suffix != ".part":
                    found.append((stat.st_mtime, stat.st_size, path))
                elif time.time() - stat.st_mtime > _STALE_SECONDS:
                    path.unlink()
        total = sum(size for _, size, _ in found)
        for used, size, path in sorted(found):
            if total <= left and used >= used_since:
                return
            path.unlink(missing_ok=True)
            total -= size


def _linked(source: Path, target: Path) -> bool:
    """Whether `target` is now a link to `source`, which nobody may write to any more."""
    try:
        os.link(source, target)
    except OSError:  # not there; or on another disk, or on one that has no links
        return False
    with contextlib.suppress(OSError):  # somebody else's
        target.chmod(0o444)
    return True


def _placed(source: Path, target: Path) -> bool:
    """Whether `target` is now a link to `source`, or a copy; False where that is not there."""
    if _linked(source, target):
        return True
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        return False
    return True


def _is_whole(target: Path, expected: StoredFile) -> bool:
    """If not, it is there no more."""
    try:
        if StoredFile(target.stat().st_size, sha256_of(target)) == expected:
            return True
    except OSError:  # it cannot be read
        pass
    target.unlink(missing_ok=True)
    return False
