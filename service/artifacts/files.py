"""Files of the store, and errors of reading and writing them."""

import errno
import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

from service.domain.errors import NotFound, Unavailable

CHUNK = 1 << 20
"""Bytes in memory while a file is copied."""

ProgressCallback = Callable[[int], None]
"""Called repeatedly while a file is copied, with the number of bytes copied so far."""

# Errors of a file that exists and cannot be read, now or later.
_UNREADABLE = frozenset({errno.EIO, errno.EACCES, errno.EPERM, errno.EBADMSG})


class StoredFile(NamedTuple):
    """Size and checksum of a file in the store."""

    size: int
    """Bytes."""
    sha256: str


class Entry(NamedTuple):
    """A file of the store, or an incomplete one that is being written or was abandoned."""

    key: str
    size: int
    """Bytes; 0 if unknown, for an incomplete upload into a bucket."""
    modified: datetime
    """UTC, by the store's clock."""
    half: str | None = None
    """Identifies an incomplete file to the store; None for a complete one."""


class DamagedFile(Exception):
    """A file of the store is truncated, changed or missing."""


class MissingFile(NotFound):
    """The store does not have a file that a row names: a fault of the store, not of the request."""

    status = Unavailable.status
    type = Unavailable.type
    title = Unavailable.title

    def __init__(self, key: str) -> None:
        super().__init__(f"the file {key!r} is not in the store, although the database names it")


class StoreUnavailable(OSError):
    """The object store does not answer, or denies access. The message names no secret."""

    def __init__(self, reason: object) -> None:
        super().__init__(errno.EHOSTUNREACH, str(reason))


def is_safe(path: str) -> bool:
    """Return True if a relative POSIX path is normalised and stays below its start."""
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and str(PurePosixPath(path)) == path
        and not path.startswith("/")
        and "\\" not in path
        and "\0" not in path
        and not any(part in (".", "..") for part in parts)
    )


def damaged(key: str, error: OSError) -> DamagedFile | OSError:
    """Return DamagedFile if the file exists and cannot be read, else `error` itself."""
    if error.errno in _UNREADABLE:
        return DamagedFile(f"the file {key!r} cannot be read: {error.strerror}")
    return error


def ignore_progress(_: int) -> None:
    """A progress callback that does nothing."""


def copy(
    reader: BinaryIO,
    writer: BinaryIO,
    size: int | None = None,
    key: str = "",
    moved: ProgressCallback = ignore_progress,
) -> StoredFile:
    """Copy to the end, or `size` bytes at the most.

    Raises OSError, and DamagedFile if `reader` cannot be read.
    """
    digest, done = hashlib.sha256(), 0
    while True:
        limit = CHUNK if size is None else min(CHUNK, size - done)
        try:
            chunk = reader.read(limit)
        except OSError as error:
            raise damaged(key, error) from error
        if not chunk:
            return StoredFile(done, digest.hexdigest())
        writer.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        moved(done)


def check_same(key: str, copied: StoredFile, expected: StoredFile | None) -> None:
    """Raise DamagedFile if the file under `key` is not the expected one."""
    if expected is not None and copied != expected:
        raise DamagedFile(
            f"the file {key!r} holds {copied.size} bytes with SHA-256 {copied.sha256}; "
            f"{expected.size} bytes with {expected.sha256} were put there"
        )
