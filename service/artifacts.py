"""Where files live: a directory, under keys such as ``runs/run_…/job_…/1/training.log``.

A file appears whole or not at all: it is written aside on the same disk, synced and renamed.
"""

import os
import shutil
import uuid
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from service.domain.errors import NotFound

_CHUNK = 1 << 20


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

    def _path(self, key: str) -> Path:
        if not is_safe(key):
            raise NotFound(f"there is no file {key!r}")
        return self.root / key

    def put_file(self, source: Path, key: str) -> None:
        """Copy a file into the store. Raises OSError; then nothing is visible under `key`."""
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        try:
            with source.open("rb") as reader, aside.open("wb") as writer:
                shutil.copyfileobj(reader, writer, _CHUNK)
                writer.flush()
                os.fsync(writer.fileno())
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)

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
