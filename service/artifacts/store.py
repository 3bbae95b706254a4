"""The artifact store: one code path, whatever the files lie in."""

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
    Damaged,
    Entry,
    Moved,
    Stored,
    check_same,
    copy,
    damaged,
    is_safe,
    unheard,
)
from service.domain.errors import NotFound

log = structlog.get_logger()


class ArtifactStore:
    """Invariant: every key is a safe relative path, so nothing leaves the directory or prefix.

    OSError is what a store that is away or full raises; StoreAway, which is one, a bucket's.
    """

    def __init__(self, url: str) -> None:
        """`file:///PATH` or `s3://BUCKET/PREFIX`. Raises OSError where a directory cannot be."""
        parts = urlsplit(url)
        self._place: Directory | Bucket
        self._place = Bucket(url) if parts.scheme == "s3" else Directory(Path(unquote(parts.path)))
        self._copies = LocalCopies(self._copy_out)

    @property
    def root(self) -> Path:
        """Of a store in a directory."""
        if isinstance(self._place, Bucket):
            raise TypeError("a bucket lies in no directory")
        return self._place.root

    def check(self) -> None:
        """Raise OSError where nothing can be stored here now. A full disk is not looked for."""
        self._place.check()

    def put_file(
        self, source: Path, key: str, size: int | None = None, moved: Moved = unheard
    ) -> Stored:
        """Copy a file, or its first `size` bytes, into the store.

        Raises OSError; then nothing is visible under `key`.
        """
        return self._place.put(source, _safe(key), size, moved)

    def fetch(
        self, key: str, target: Path, expected: Stored | None = None, moved: Moved = unheard
    ) -> None:
        """Copy a file out of the store.

        Raises OSError, and Damaged where it cannot be read or is not `expected`.
        """
        try:
            self._copy_out(key, target, expected, moved)
        except NotFound as error:
            raise Damaged(error.detail) from error

    def _copy_out(
        self, key: str, target: Path, expected: Stored | None, moved: Moved = unheard
    ) -> None:
        self._place.check_there()
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            reader = self.open(key)
        except OSError as error:
            raise damaged(key, error) from error
        with reader, target.open("wb") as writer:
            found = copy(reader, writer, key=key, moved=moved)
        check_same(key, found, expected)

    def open(self, key: str, start: int = 0) -> BinaryIO:
        """The file from byte `start` on. Raises NotFound, OSError."""
        return self._place.open(_safe(key), start)

    def chunks(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to `end`, in pieces that fit into memory.

        It is opened at once: raises NotFound and OSError here, and OSError while it is read, also
        where the file ends before `end`.
        """
        return _read(self.open(key, start), key, None if end is None else end - start)

    def verified(self, key: str, expected: Stored) -> Iterator[bytes]:
        """The whole file in pieces, the last of which comes only where all were `expected`.

        Raises as `chunks` does, and Damaged while it is read.
        """
        return _verified(self.chunks(key), key, expected)

    @contextlib.contextmanager
    def local(self, key: str, expected: Stored | None = None) -> Iterator[Path]:
        """The file as a path to read from; of a bucket a copy, compared with `expected`.

        Raises NotFound, OSError, Damaged.
        """
        if isinstance(self._place, Bucket):
            with self._copies.of(_safe(key), expected) as path:
                yield path
        else:
            self._place.stat(_safe(key))
            yield self._place.root / key

    def path_of(self, key: str) -> Path | None:
        """Where a directory keeps the file, if it is there; None of a bucket."""
        return None if isinstance(self._place, Bucket) else self._place.root / _safe(key)

    def link(self, key: str, name: str, media_type: str, seconds: int = 900) -> str | None:
        """A URL under which a bucket itself hands out the file for so long; None of a directory.

        Raises NotFound, OSError.
        """
        if isinstance(self._place, Directory):
            return None
        self._place.stat(_safe(key))
        return self._place.link(key, name, media_type, seconds)

    def stat(self, key: str) -> Entry:
        """Raises NotFound, OSError."""
        return self._place.stat(_safe(key))

    def exists(self, key: str) -> bool:
        """Raises OSError."""
        try:
            self.stat(key)
        except NotFound:
            return False
        return True

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Everything under `prefix`, halves too. Raises OSError."""
        return self._place.entries(prefix)

    def remove(self, entries: Iterable[Entry]) -> None:
        """Remove these; what is not there is no error. Raises OSError."""
        self._place.remove(entries)

    def remove_tree(self, prefix: str) -> None:
        """Remove everything under `prefix`; what is not there is no error. Raises OSError."""
        self._place.remove_tree(_safe(prefix))

    def delete_tree(self, prefix: str) -> None:
        """The same for what no row names any more: errors leave it to `tidy` or a later sweep."""
        try:
            self.remove_tree(prefix)
        except OSError as error:
            log.warning("files left behind", prefix=prefix, error=str(error))

    def tidy(self, prefix: str, keep: Collection[str]) -> int:
        """Remove every file under `prefix` whose key is not in `keep`; return how many.

        Halves that a killed process left are among them. Errors leave the rest for the next time.
        """
        try:
            return self._place.tidy(_safe(prefix), keep)
        except OSError as error:
            log.warning("not tidied", prefix=prefix, error=str(error))
            return 0


def _safe(key: str) -> str:
    if not is_safe(key):
        raise NotFound(f"there is no file {key!r}")
    return key


def _verified(chunks: Iterator[bytes], key: str, expected: Stored) -> Iterator[bytes]:
    digest, size, held = hashlib.sha256(), 0, b""
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        if held:
            yield held
        held = chunk
    check_same(key, Stored(size, digest.hexdigest()), expected)
    if held:
        yield held


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
