"""Several files of the store as one tar, whose length is known before its first byte is sent.

GNU's format without compression (tar(5)): it takes files of any size and names of any length, and
what stands between two files depends on names and sizes alone. The same files give the same bytes.
"""

import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

CHUNK = 1 << 20
_END = bytes(2 * tarfile.BLOCKSIZE)


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    """Its path there."""
    key: str
    """Where it lies in the store."""
    size: int
    """Bytes."""
    modified: float
    """Seconds since the epoch."""


def tar_size(members: Sequence[Member]) -> int:
    """Bytes of the whole tar."""
    headers = sum(len(_header(one)) for one in members)
    return headers + sum(one.size + _padding(one.size) for one in members) + len(_END)


def tar_stream(members: Sequence[Member], open_file: Callable[[str], BinaryIO]) -> Iterator[bytes]:
    """The tar, in pieces of at most CHUNK bytes, each file opened when its turn comes.

    Raises what `open_file` raises, and OSError for a file that is shorter than it should be: what
    was sent by then is not a whole tar, and the length says so. A longer one is cut off.
    """
    for one in members:
        yield _header(one)
        left = one.size
        with open_file(one.key) as file:
            while left:
                chunk = file.read(min(CHUNK, left))
                if not chunk:
                    raise OSError(f"the file {one.key!r} is {left} bytes shorter than it was")
                left -= len(chunk)
                yield chunk
        yield bytes(_padding(one.size))
    yield _END


def _header(member: Member) -> bytes:
    info = tarfile.TarInfo(member.name)
    info.size = member.size
    info.mtime = int(member.modified)
    info.mode = 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> int:
    return -size % tarfile.BLOCKSIZE
