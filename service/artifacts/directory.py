"""A directory as the artifact store: a file is written aside on the same disk, synced, renamed."""

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

from service.artifacts.files import Entry, Moved, Stored, copy
from service.domain.errors import NotFound

# Without it a mount point whose disk is gone looks like an empty store.
MARKER = ".fairtune-store"
_HALF = re.compile(r"\..+\.[0-9a-f]{32}\.part")


class Directory:
    """Keys are safe relative paths: their caller has seen to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        (root / MARKER).touch()

    def check_there(self) -> None:
        """Raise OSError where the directory is not the one that was there: it was unmounted."""
        if not (self.root / MARKER).exists():
            message = f"{MARKER} is missing from the artifact store; is it mounted?"
            raise OSError(errno.ENXIO, message, str(self.root))

    def check(self) -> None:
        """Raise OSError where nothing can be stored here now. A full disk is not looked for."""
        self.check_there()
        if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "may not be written", str(self.root))

    def put(self, source: Path, key: str, size: int | None, moved: Moved) -> Stored:
        self.check_there()
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
            raise NotFound(f"the file {key!r} is not in the store") from error
        file.seek(start)
        return file

    def stat(self, key: str) -> Entry:
        path = self.root / key
        if not path.is_file():
            raise NotFound(f"the file {key!r} is not in the store")
        return self._entry(path)

    def entries(self, prefix: str) -> Iterator[Entry]:
        self.check_there()
        for path in sorted(_below(self.root / prefix)):
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
        self.check_there()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.root / prefix)

    def tidy(self, prefix: str, keep: Collection[str]) -> int:
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
        found = path.stat()
        key = path.relative_to(self.root).as_posix()
        modified = datetime.fromtimestamp(found.st_mtime, UTC)
        half = key if _HALF.fullmatch(path.name) else None
        return Entry(key, found.st_size, modified, half)


def _below(folder: Path) -> Iterator[Path]:
    """Files and folders at any depth, except what goes meanwhile. Raises OSError."""

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for where, folders, files in os.walk(folder, onerror=unreadable):
        for name in (*folders, *files):
            yield Path(where, name)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
