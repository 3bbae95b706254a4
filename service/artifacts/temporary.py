"""Folders for users' rows in the temp folder, which outlive no process for long."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

log = structlog.get_logger()

UPLOADS = "fairtune-upload-"
COPIES = "fairtune-copies-"
_YOUNG_SECONDS = 1.0


class TemporaryFolder:
    """A new folder, which this process locks as long as it lives."""

    def __init__(self, prefix: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        self._descriptor = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    folder = TemporaryFolder(prefix)
    try:
        yield folder.path
    finally:
        folder.remove()


def remove_abandoned() -> int:
    """Remove the folders of killed processes; return their number.

    The kernel unlocks a folder when its process ends, however it ends.
    """
    removed = 0
    parent = Path(tempfile.gettempdir())
    for folder in [*parent.glob(f"{UPLOADS}*"), *parent.glob(f"{COPIES}*")]:
        with contextlib.suppress(OSError):  # removed meanwhile, or another user's
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            age = time.time() - folder.stat().st_ctime
            if age < _YOUNG_SECONDS:  # perhaps not locked yet
                time.sleep(_YOUNG_SECONDS)
            if _is_abandoned(folder):
                shutil.rmtree(folder)
                removed += 1
    if removed:
        log.info("temporary folders of killed processes removed", count=removed)
    return removed


def _is_abandoned(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
