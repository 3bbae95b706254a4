"""The artifact store: one interface to a directory or a bucket."""

import contextlib
import hashlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import structlog

from service.artifacts.bucket import Bucket
from service.artifacts.copies import LocalCopies
from service.artifacts.directory import Directory
from service.artifacts.files import (
    CHUNK,
    DamagedFile,
    Entry,
    ProgressCallback,
    StoredFile,
    check_same,
    copy,
    damaged,
    ignore_progress,
    is_safe,
)
from service.domain.errors import NotFound

log = structlog.get_logger()


class ArtifactStore:
    """Invariant: every key is a safe relative path, so nothing leaves the directory or prefix.

    A store that is unreachable or full raises OSError; a bucket its subclass StoreUnavailable.
    """

    def __init__(self, url: str) -> None:
        """`file:///PATH` or `s3://BUCKET/PREFIX`. Raises OSError if it cannot be created."""
        parts = urlsplit(url)
        self._backend: Directory | Bucket
        self._backend = (
            Bucket(url) if parts.scheme == "s3" else Directory(Path(unquote(parts.path)))
        )
        self._copies = LocalCopies(self._copy_out)

    @property
    def root(self) -> Path:
        """Directory of a store that is one."""
        if isinstance(self._backend, Bucket):
            raise TypeError("a bucket has no directory")
        return self._backend.root

    def check(self) -> None:
        """Raise OSError if no file can be stored now. Free space is not checked."""
        self._backend.check()

    def put_file(
        self,
        source: Path,
        key: str,
        size: int | None = None,
        moved: ProgressCallback = ignore_progress,
    ) -> StoredFile:
        """Copy a file, or its first `size` bytes, into the store.

        Raises OSError; then nothing is visible under `key`.
        """
        return self._backend.put(source, _safe(key), size, moved)

    def fetch(
        self,
        key: str,
        target: Path,
        expected: StoredFile | None = None,
        moved: ProgressCallback = ignore_progress,
    ) -> None:
        """Copy a file out of the store.

        Raises OSError, and DamagedFile where it cannot be read or is not `expected`.
        """
        try:
            self._copy_out(key, target, expected, moved)
        except NotFound as error:
            raise DamagedFile(error.detail) from error

    def _copy_out(
        self,
        key: str,
        target: Path,
        expected: StoredFile | None,
        moved: ProgressCallback = ignore_progress,
    ) -> None:
        self._backend.check_mounted()
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            reader = self.open(key)
        except OSError as error:
            raise damaged(key, error) from error
        with reader, target.open("wb") as writer:
            copied = copy(reader, writer, key=key, moved=moved)
        check_same(key, copied, expected)

    def open(self, key: str, start: int = 0) -> BinaryIO:
        """The file from byte `start` on. Raises NotFound, OSError."""
        return self._backend.open(_safe(key), start)

    def chunks(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `start` to `end`, in pieces that fit into memory.

        The file is opened at once: raises NotFound and OSError here, and OSError while it is read,
        also if it ends before `end`.
        """
        return _read(self.open(key, start), key, None if end is None else end - start)

    def verified(self, key: str, expected: StoredFile) -> Iterator[bytes]:
        """Yield the whole file in pieces, the last one only if all of it is as expected.

        Raises as `chunks` does, and DamagedFile while it is read.
        """
        return _verified(self.chunks(key), key, expected)

    @contextlib.contextmanager
    def local(self, key: str, expected: StoredFile | None = None) -> Iterator[Path]:
        """Provide the file as a local path; a bucket's as a copy compared with `expected`.

        Raises NotFound, OSError, DamagedFile.
        """
        if isinstance(self._backend, Bucket):
            with self._copies.of(_safe(key), expected) as path:
                yield path
        else:
            self._backend.stat(_safe(key))
            yield self._backend.root / key

    def path_of(self, key: str) -> Path | None:
        """Return the file's path in a directory, whether or not it exists; None for a bucket."""
        return None if isinstance(self._backend, Bucket) else self._backend.root / _safe(key)

    def link(self, key: str, name: str, media_type: str, seconds: int = 900) -> str | None:
        """Return a URL, valid for so many seconds, that serves the file; None for a directory.

        Raises NotFound, OSError.
        """
        if isinstance(self._backend, Directory):
            return None
        self._backend.stat(_safe(key))
        return self._backend.link(key, name, media_type, seconds)

    def stat(self, key: str) -> Entry:
        """Raises NotFound, OSError."""
        return self._backend.stat(_safe(key))

    def exists(self, key: str) -> bool:
        """Raises OSError."""
        try:
            self.stat(key)
        except NotFound:
            return False
        return True

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Yield all files under `prefix`, incomplete ones too. Raises OSError."""
        return self._backend.entries(prefix)

    def remove(self, entries: Iterable[Entry]) -> None:
        """Remove these files; a missing one is no error. Raises OSError."""
        self._backend.remove(entries)

    def remove_tree(self, prefix: str) -> None:
        """Remove all files under `prefix`; a missing prefix is no error. Raises OSError."""
        self._backend.remove_tree(_safe(prefix))

    def delete_tree(self, prefix: str) -> bool:
        """Remove files that no row names; return False after an error.

        The files are then orphaned: the end of the run's next attempt, or `fairtune gc`, removes
        them.
        """
        try:
            self.remove_tree(prefix)
        except OSError as error:
            log.warning("files left behind", prefix=prefix, error=str(error))
            return False
        return True

    def remove_except(self, prefix: str, keep: Collection[str]) -> int:
        """Remove every file under `prefix` whose key is not in `keep`; return their number.

        That includes incomplete files of killed processes. Raises OSError; the others then stay.
        """
        return self._backend.remove_except(_safe(prefix), keep)


def _safe(key: str) -> str:
    if not is_safe(key):
        raise NotFound(f"there is no file {key!r}")
    return key


def _verified(chunks: Iterator[bytes], key: str, expected: StoredFile) -> Iterator[bytes]:
    digest, size, pending = hashlib.sha256(), 0, b""
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        if pending:
            yield pending
        pending = chunk
    check_same(key, StoredFile(size, digest.hexdigest()), expected)
    if pending:
        yield pending


def _read(file: BinaryIO, key: str, length: int | None) -> Iterator[bytes]:
    with file:
        while length is None or length > 0:
            chunk = file.read(CHUNK if length is None else min(CHUNK, length))
            if not chunk:
                if length is not None:
                    raise OSError(f"the file {key!r} ends {length} bytes too soon")
                return
            if length is not None:
                length -= len(chunk)
            yield chunk
