"""Archives made while they are sent, in constant memory: nothing is laid out on a disk before.

What is in them are weights, which no compression makes smaller; so nothing is compressed.
"""

import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_MODE = 0o644
_FIRST_YEAR = 1980  # zip knows none before


class Member(NamedTuple):
    """A file to be archived."""

    name: str
    """A relative POSIX path."""
    size: int
    """Bytes."""
    chunks: Callable[[], Iterable[bytes]]
    """Called when its turn comes; gives exactly `size` bytes."""
    modified: datetime = datetime.fromtimestamp(0, UTC)


def tar_size(members: Sequence[Member]) -> int:
    """Bytes of the archive that `tar` makes of these."""
    return sum(len(_header(one)) + one.size + _padding(one.size) for one in members) + len(_END)


def tar(members: Sequence[Member]) -> Iterator[bytes]:
    """An uncompressed tar (POSIX.1-2001), of any size. The same members give the same bytes.

    Raises what a member's chunks raise, and ValueError where they are not as many as was said:
    then what came before is no whole archive.
    """
    for member in members:
        yield _header(member)
        yield from _exactly(member)
        yield bytes(_padding(member.size))
    yield _END


def zip_stored(members: Sequence[Member]) -> Iterator[bytes]:
    """The same as a zip whose files are stored as they are. Its size is not known before."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]  # it only writes
        for member in members:
            when = max(member.modified, datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC))
            entry = zipfile.ZipInfo(member.name, when.timetuple()[:6])
            entry.external_attr = _MODE << 16
            entry.file_size = member.size  # so that it knows whether to write large numbers
            with archive.open(entry, "w") as file:
                for chunk in _exactly(member):
                    file.write(chunk)
                    yield sink.taken()
            yield sink.taken()
    yield sink.taken()


def _header(member: Member) -> bytes:
    entry = tarfile.TarInfo(member.name)
    entry.size = member.size
    entry.mode = _MODE
    entry.mtime = int(member.modified.timestamp())
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> int:
    return -size % _BLOCK


def _exactly(member: Member) -> Iterator[bytes]:
    left = member.size
    for chunk in member.chunks():
        left -= len(chunk)
        if left < 0:
            break
        yield chunk
    if left:
        raise ValueError(f"{member.name} is not of {member.size} bytes")


class _Sink:
    """What zipfile writes to: keeps it until it is taken. It has no position to go back to."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken
