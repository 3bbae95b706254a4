"""Local files of downloads."""

import hashlib
from pathlib import Path, PurePosixPath

from fairtune.errors import DownloadFailed

HASH_BUFFER_BYTES = 1 << 20


def target_file(directory: Path, name: str) -> Path:
    """Return the file for a relative path and make its folder. Raises DownloadFailed.

    A server must not be able to write outside of the directory that the user chose.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise DownloadFailed(f"the server named the unsafe path {name!r}")
    file = directory.joinpath(*path.parts)
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def digest(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
