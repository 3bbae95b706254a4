"""Archives built while they are sent, in constant memory and without a temporary file.

Their files are weights, which do not compress; so nothing is compressed.
"""

import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_MODE = 0o644
_FIRST_YEAR = 1980  # the first that zip can express


class Member(NamedTuple):
    """A file to be archived."""

    name: str
    """A relative POSIX path."""
    size: int
    """Bytes."""
    chunks: Callable[[], Iterable[bytes]]
    """Called when the file is due; yields exactly `size` bytes."""
    modified: datetime = datetime.fromtimestamp(0, UTC)


def tar_size(members: Sequence[Member]) -> int:
    """Return the size in bytes of the archive that `tar` yields."""
    return sum(
        len(_header(member)) + member.size + _padding(member.size) for member in members
    ) + len(_END)


def tar(members: Sequence[Member]) -> Iterator[bytes]:
    """Yield an uncompressed tar (POSIX.1-2001) of any size. Equal members give equal bytes.

    Raises what a member's chunks raise, and ValueError if they do not add up to its size; the bytes
    before are then not a complete archive.
    """
    for member in members:
        yield _header(member)
        yield from _exactly(member)
        yield bytes(_padding(member.size))
    yield _END


def zip_stored(members: Sequence[Member]) -> Iterator[bytes]:
    """Yield a zip of the members, uncompressed. Its size is not known beforehand."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]  # it only writes
        for member in members:
            when = max(member.modified, datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC))
            entry = zipfile.ZipInfo(member.name, when.timetuple()[:6])
            entry.external_attr = _MODE << 16
            entry.file_size = member.size  # tells zipfile whether to write 64-bit sizes
            with archive.open(entry, "w") as file:
                for chunk in _exactly(member):
                    file.write(chunk)
                    yield sink.take()
            yield sink.take()
    yield sink.take()


def _header(member: Member) -> bytes:
    entry = tarfile.TarInfo(member.name)
    entry.size = member.size
    entry.mode = _MODE
    entry.mtime = int(member.modified.timestamp())
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> int:
    return -size % _BLOCK


def _exactly(member: Member) -> Iterator[bytes]:
    missing = member.size
    for chunk in member.chunks():
        missing -= len(chunk)
        if missing < 0:
            break
        yield chunk
    if missing:
        raise ValueError(f"{member.name} is not of {member.size} bytes")


class _Sink:
    """Write-only, unseekable file for zipfile that buffers data until `take`."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        data = bytes(self._written)
        self._written.clear()
        return data
