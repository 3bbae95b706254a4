"""A directory as the artifact store: files are written aside on the same disk, synced, renamed."""

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from service.artifacts.files import Entry, MissingFile, ProgressCallback, StoredFile, copy

# Without it a mount point whose disk is gone looks like an empty store.
MARKER = ".fairtune-store"
_HALF = re.compile(r"\..+\.[0-9a-f]{32}\.part")


class Directory:
    """Implementation for a directory. Keys are safe relative paths: the caller has checked them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        (root / MARKER).touch()

    def check_mounted(self) -> None:
        """Raise OSError if the directory lacks its marker, because it was unmounted."""
        if not (self.root / MARKER).exists():
            message = f"{MARKER} is missing from the artifact store; is it mounted?"
            raise OSError(errno.ENXIO, message, str(self.root))

    def check(self) -> None:
        """Raise OSError if no file can be stored now. Free space is not checked."""
        self.check_mounted()
        if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "may not be written", str(self.root))

    def put(self, source: Path, key: str, size: int | None, moved: ProgressCallback) -> StoredFile:
        self.check_mounted()
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        try:
            with source.open("rb") as reader, aside.open("wb") as writer:
                stored = copy(reader, writer, size, key, moved)
                writer.flush()
                os.fsync(writer.fileno())
            aside.replace(target)
            _sync(target.parent)
        finally:
            aside.unlink(missing_ok=True)
        return stored

    def open(self, key: str, start: int = 0) -> BinaryIO:
        try:
            file = (self.root / key).open("rb")
        except (FileNotFoundError, IsADirectoryError) as error:
            self.check_mounted()  # else every file would seem lost
            raise MissingFile(key) from error
        file.seek(start)
        return file

    def stat(self, key: str) -> Entry:
        path = self.root / key
        if not path.is_file():
            self.check_mounted()
            raise MissingFile(key)
        return self._entry(path)

    def entries(self, prefix: str) -> Iterator[Entry]:
        self.check_mounted()
        for path in _below(self.root / prefix):
            if path.name != MARKER and path.is_file():
                with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                    yield self._entry(path)

    def remove(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            path = self.root / (entry.half or entry.key)
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty
                for parent in path.parents[: len(Path(entry.key).parts) - 1]:
                    parent.rmdir()

    def remove_tree(self, prefix: str) -> None:
        self.check_mounted()
        tree = self.root / prefix
        while tree.exists():
            with contextlib.suppress(FileNotFoundError):  # another process removes it, too
                shutil.rmtree(tree)

    def remove_except(self, prefix: str, keep: Collection[str]) -> int:
        removed = 0
        for path in sorted(_below(self.root / prefix), reverse=True):
            if path.is_dir():
                with contextlib.suppress(OSError):  # not empty
                    path.rmdir()
            elif path.relative_to(self.root).as_posix() not in keep:
                path.unlink(missing_ok=True)
                removed += 1
        with contextlib.suppress(OSError):
            (self.root / prefix).rmdir()
        return removed

    def _entry(self, path: Path) -> Entry:
        status = path.stat()
        key = path.relative_to(self.root).as_posix()
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
        half = key if _HALF.fullmatch(path.name) else None
        return Entry(key, status.st_size, modified, half)


def _below(folder: Path) -> Iterator[Path]:
    """Yield files and folders at any depth, without those that vanish meanwhile. Raises OSError."""

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for where, folders, files in os.walk(folder, onerror=unreadable):
        folders.sort()
        for name in (*folders, *sorted(files)):
            yield Path(where, name)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
