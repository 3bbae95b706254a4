"""Where files live: a directory, under keys such as ``runs/run_…/job_…/1/training.log``.

A file appears whole or not at all: it is written aside on the same disk, synced and renamed.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote, urlsplit

from service.domain.errors import NotFound

_CHUNK = 1 << 20


# Without it a mount point whose disk is gone looks like an empty store.
_MARKER = ".fairtune-store"

# What a reader is told of a file that is there and cannot be read, now or later.
_UNREADABLE = frozenset({errno.EIO, errno.EACCES, errno.EPERM, errno.EBADMSG})


class Stored(NamedTuple):
    """What was written."""

    size: int
    """Bytes."""
    sha256: str


class Damaged(Exception):
    """A file of the store that is not what was put there: cut short, changed or gone."""


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


class ArtifactStore:
    """Invariant: every key is a safe relative path, so nothing leaves `root`."""

    def __init__(self, url: str) -> None:
        self.root = Path(unquote(urlsplit(url).path))
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / _MARKER).touch()

    def _check(self) -> None:
        """Raise OSError where the directory is not the one that was there: it was unmounted."""
        if not (self.root / _MARKER).exists():
            message = f"{_MARKER} is missing from the artifact store; is it mounted?"
            raise OSError(errno.ENXIO, message, str(self.root))

    def check(self) -> None:
        """Raise OSError where nothing can be stored here now. A full disk is not looked for."""
        self._check()
        if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "may not be written", str(self.root))

    def _path(self, key: str) -> Path:
        if not is_safe(key):
            raise NotFound(f"there is no file {key!r}")
        return self.root / key

    def put_file(self, source: Path, key: str, size: int | None = None) -> Stored:
        """Copy a file, or its first `size` bytes, into the store.

        Raises OSError; then nothing is visible under `key`.
        """
        self._check()
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        try:
            with source.open("rb") as reader, aside.open("wb") as writer:
                stored = _copy(reader, writer, size)
                writer.flush()
                os.fsync(writer.fileno())
            aside.replace(target)
            _sync(target.parent)
        finally:
            aside.unlink(missing_ok=True)
        return stored

    def fetch(self, key: str, target: Path, expected: Stored | None = None) -> None:
        """Copy a file out of the store.

        Raises OSError, and Damaged where it cannot be read or is not `expected`.
        """
        self._check()
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            reader = self.open(key)
        except NotFound as error:
            raise Damaged(error.detail) from error
        except OSError as error:
            raise _damaged(key, error) from error
        with reader, target.open("wb") as writer:
            found = _copy(reader, writer, None, key)
        if expected is not None and found != expected:
            raise Damaged(
                f"the file {key!r} holds {found.size} bytes with SHA-256 {found.sha256}; "
                f"{expected.size} bytes with {expected.sha256} were put there"
            )

    def open(self, key: str) -> BinaryIO:
        """Raises NotFound."""
        try:
            return self._path(key).open("rb")
        except (FileNotFoundError, IsADirectoryError) as error:
            raise NotFound(f"the file {key!r} is not in the store") from error

    def local_path(self, key: str) -> Path:
        """The file itself, to read. Raises NotFound."""
        path = self._path(key)
        if not path.is_file():
            raise NotFound(f"the file {key!r} is not in the store")
        return path

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def delete_tree(self, prefix: str) -> None:
        """Remove every file under `prefix`; what is not there is no error."""
        shutil.rmtree(self._path(prefix), ignore_errors=True)

    def tidy(self, prefix: str, keep: Collection[str]) -> int:
        """Remove every file under `prefix` whose key is not in `keep`; return how many.

        Halves that a killed process left are among them. Errors leave the rest for the next time.
        """
        removed = 0
        with contextlib.suppress(OSError):
            for path in sorted(self._path(prefix).rglob("*"), reverse=True):
                if path.is_dir():
                    with contextlib.suppress(OSError):  # not empty
                        path.rmdir()
                elif path.relative_to(self.root).as_posix() not in keep:
                    path.unlink(missing_ok=True)
                    removed += 1
            with contextlib.suppress(OSError):
                self._path(prefix).rmdir()
        return removed


def _damaged(key: str, error: OSError) -> Damaged | OSError:
    if error.errno in _UNREADABLE:
        return Damaged(f"the file {key!r} cannot be read: {error.strerror}")
    return error


def _copy(reader: BinaryIO, writer: BinaryIO, size: int | None, key: str = "") -> Stored:
    """Raises OSError, and Damaged where `reader` cannot be read."""
    digest, done = hashlib.sha256(), 0
    while True:
        try:
            chunk = reader.read(_CHUNK if size is None else min(_CHUNK, size - done))
        except OSError as error:
            raise _damaged(key, error) from error
        if not chunk:
            return Stored(done, digest.hexdigest())
        writer.write(chunk)
        digest.update(chunk)
        done += len(chunk)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
