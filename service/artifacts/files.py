"""What the store says of its files, and what can be wrong with them."""

import errno
import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

CHUNK = 1 << 20
"""Bytes that are held in memory while a file is copied."""

Moved = Callable[[int], None]
"""Told again and again, while a file is copied, how many of its bytes are there by now."""

# What a reader is told of a file that is there and cannot be read, now or later.
_UNREADABLE = frozenset({errno.EIO, errno.EACCES, errno.EPERM, errno.EBADMSG})


class Stored(NamedTuple):
    """What was written."""

    size: int
    """Bytes."""
    sha256: str


class Entry(NamedTuple):
    """A file of the store, or the half of one that is being written, or was when somebody died."""

    key: str
    size: int
    """Bytes; 0 where nobody knows, of a half in a bucket."""
    modified: datetime
    """UTC, by the store's clock."""
    half: str | None = None
    """Names the half, for the store alone; None for a whole file."""


class Damaged(Exception):
    """A file of the store that is not what was put there: cut short, changed or gone."""


class StoreAway(OSError):
    """The object store does not answer, or does not let us in. What it said names no secret."""

    def __init__(self, said: object) -> None:
        super().__init__(errno.EHOSTUNREACH, str(said))


def is_safe(path: str) -> bool:
    """Whether a relative POSIX path stays below where it starts and means itself alone."""
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and str(PurePosixPath(path)) == path
        and not path.startswith("/")
        and "\\" not in path
        and "\0" not in path
        and not any(part in (".", "..") for part in parts)
    )


def damaged(key: str, error: OSError) -> Damaged | OSError:
    """`error` itself, or what it means where the file is there and cannot be read."""
    if error.errno in _UNREADABLE:
        return Damaged(f"the file {key!r} cannot be read: {error.strerror}")
    return error


def unheard(_: int) -> None:
    """A `Moved` for whom it may concern: nobody."""


def copy(
    reader: BinaryIO,
    writer: BinaryIO,
    size: int | None = None,
    key: str = "",
    moved: Moved = unheard,
) -> Stored:
    """Copy to the end, or `size` bytes at the most.

    Raises OSError, and Damaged where `reader` cannot be read.
    """
    digest, done = hashlib.sha256(), 0
    while True:
        wanted = CHUNK if size is None else min(CHUNK, size - done)
        try:
            chunk = reader.read(wanted)
        except OSError as error:
            raise damaged(key, error) from error
        if not chunk:
            return Stored(done, digest.hexdigest())
        writer.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        moved(done)


def check_same(key: str, found: Stored, expected: Stored | None) -> None:
    """Raise Damaged where `expected` was put under `key` and `found` came out."""
    if expected is not None and found != expected:
        raise Damaged(
            f"the file {key!r} holds {found.size} bytes with SHA-256 {found.sha256}; "
            f"{expected.size} bytes with {expected.sha256} were put there"
        )
