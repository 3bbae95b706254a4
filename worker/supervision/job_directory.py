"""Job directories: everything that a program needs, owned by one supervisor and then removed."""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from service.domain.job import EVENTS_FILE, JOB_FILE, LOG_FILE, Job
from service.store.jobs import Claim

_LOCK_SUFFIX = ".lock"
# Names that `path_of` makes, and nothing else that a person may keep in the same directory.
_NAME = re.compile(r"(job_[0-9a-z]+-[0-9]+)(\.lock)?")


def path_of(jobs_dir: Path, claim: Claim) -> Path:
    """Return the directory of an attempt; its name contains the token, so no two share one."""
    return jobs_dir / f"{claim.job_id}-{claim.token}"


def open_log(directory: Path) -> BinaryIO:
    """Open the program's log for appending: its output goes to the same file."""
    return (directory / LOG_FILE).open("ab")


@contextlib.contextmanager
def owned(directory: Path) -> Iterator[None]:
    """Own a job directory, and remove it at the end.

    The lock file beside it is released when this process ends, in whatever way, and so tells
    `remove_abandoned` which directories are unused. Raises OSError.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    lock = _acquire(_lock_path(directory), wait=True)
    assert lock is not None
    try:
        yield
    finally:
        _remove(directory, lock)


def remove_abandoned(jobs_dir: Path) -> int:
    """Remove the directories of supervisors that were killed; return their number.

    Never raises: a directory that cannot be removed now is left to a later call.
    """
    removed = 0
    with contextlib.suppress(OSError):
        matches = (_NAME.fullmatch(path.name) for path in jobs_dir.iterdir())
        for name in sorted({match[1] for match in matches if match}):
            directory = jobs_dir / name
            lock = _acquire(_lock_path(directory), wait=False)
            if lock is not None:
                _remove(directory, lock)
                removed += 1
    return removed


def write_job(directory: Path, job: Job) -> None:
    """Write job.json, whole or not at all. Raises OSError."""
    temporary = directory / f".{JOB_FILE}.tmp"
    temporary.write_text(job.model_dump_json(indent=2) + "\n")
    temporary.replace(directory / JOB_FILE)


def newest_checkpoint(directory: Path, resume_from: str | None) -> str | None:
    """Return the newest checkpoint in this directory, as job.json names it.

    It must have been announced by a program, or be the one that it resumed from: one that is
    complete but not announced would leave a gap in the metrics, whose lines before it are missing.
    """
    paths = [] if resume_from is None else [resume_from]
    if (directory / EVENTS_FILE).exists():
        for raw in (directory / EVENTS_FILE).read_bytes().split(b"\n")[:-1]:
            line = json.loads(raw)
            if line["type"] == "checkpoint":
                paths.append(line["path"])
    existing = [path for path in paths if (directory / path).is_dir()]
    return max(existing, key=lambda path: int(path.rpartition("-")[2]), default=None)


def _lock_path(directory: Path) -> Path:
    return directory.with_name(directory.name + _LOCK_SUFFIX)


def _acquire(path: Path, *, wait: bool) -> int | None:
    """Return a descriptor that holds the lock; None if another process holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Another process may have removed the file between our open and lock.
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _remove(directory: Path, lock: int) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    _lock_path(directory).unlink(missing_ok=True)
    os.close(lock)
