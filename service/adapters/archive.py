"""Files of a PEFT directory in an uploaded tar, which may have been made to do harm.

The archive is read once, front to back, in pieces of bounded size: its headers decide neither where
a file is written nor how much memory is taken. That is why Python's `tarfile`, which reads long
names and extended headers of any size and in any number, parses single headers only.
"""

import gzip
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, cast

import pyarrow as pa

from service.domain.adapter_config import ADAPTER_CONFIG_FILE
from service.domain.content_kinds import GZIP, HEAD_BYTES, kind_of, page_kind
from service.domain.errors import InvalidRequest, first_line
from service.domain.job import ADAPTER_WEIGHTS_FILE, CARD_FILE

MAX_MEMBERS = 10_000
MAX_TEXT_BYTES = 1 << 20
"""Maximum size of adapter_config.json, of the model card, and of an extended header."""
MAX_LISTED = 100
"""Maximum number of ignored files that are listed."""
PICKLE_FILE = "adapter_model.bin"

_USED = (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, CARD_FILE)
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_ZSTD = b"\x28\xb5\x2f\xfd"
_MAX_SHOWN = 80

_PACK = (
    f"pack {ADAPTER_CONFIG_FILE} and {ADAPTER_WEIGHTS_FILE} again (tar -cf adapter.tar -C DIR .)"
)
_INVALID = (tarfile.HeaderError, ValueError, ArithmeticError)
"""Errors of parsing a header."""
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)

Parts = tuple[str, ...]
"""A path as its names."""


class Unpacked(NamedTuple):
    """The files of a PEFT directory that are used."""

    config: Path
    weights: Path
    card: Path | None
    """The model card; None if there is none."""
    ignored: list[str]
    """Names of other files, at most MAX_LISTED of them, in printable ASCII."""
    ignored_count: int


def unpack(file: BinaryIO, folder: Path, max_bytes: int) -> Unpacked:
    """Write the used files of the archive into `folder`, under names of our own.

    The archive is a tar, plain or compressed by gzip or Zstandard, of at most `max_bytes` of
    content; its files are at the top or in one folder. Raises InvalidRequest at ``/file``.
    """
    reader = _Reader(file, max_bytes)
    members, pending = _Members(folder), _Pending()
    for number in range(MAX_MEMBERS + 1):
        block = reader.read(_BLOCK)
        if not block or not any(block):
            if not number:
                raise refusal("is an empty archive: " + _PACK)
            return members.result()
        header = _header(block, number)
        if header.type in _EXTENDED:
            pending.extend(_records(reader.text(header.size), header))
        elif header.type == tarfile.XGLTYPE:
            records = _records(reader.text(header.size), header)
            if {"path", "size"} & records.keys():
                raise refusal("has a global header with a path or a size, which no tool writes")
        elif header.type == tarfile.GNUTYPE_LONGNAME:
            name = reader.text(header.size).partition(b"\0")[0]
            pending.name = name.decode("utf-8", "surrogateescape")
        elif header.type == tarfile.GNUTYPE_LONGLINK:
            reader.text(header.size)
        else:
            members.add(header, pending, reader)
            pending = _Pending()
    raise refusal(f"has more than {MAX_MEMBERS:,} entries: {_PACK}")


def refusal(detail: str) -> InvalidRequest:
    return InvalidRequest.at("/file", detail)


def shown(name: str) -> str:
    """Return a name from an archive in printable ASCII, shortened."""
    text = ascii(name)[1:-1]
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


class _Pending:
    """Extended values for the next file."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.size: int | None = None

    def extend(self, records: dict[str, str]) -> None:
        if any(name.startswith("GNU.sparse") for name in records):
            raise refusal("holds a sparse file: " + _PACK)
        self.name = records.get("path", self.name)
        if (size := records.get("size")) is not None:
            if not (size.isascii() and size.isdigit() and len(size) < 20):
                raise refusal("is damaged: the size of a file is no number; " + _PACK)
            self.size = int(size)


class _Reader:
    """The archive's content, decompressed piece by piece, and never more than `max_bytes`."""

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        head = file.read(HEAD_BYTES)
        file.seek(0)
        self._limit = max_bytes
        self._done = 0
        self._source: IO[bytes] = file
        if head.startswith(GZIP):
            self._source = cast("IO[bytes]", gzip.GzipFile(fileobj=file, mode="rb"))
        elif head.startswith(_ZSTD):
            self._source = cast(
                "IO[bytes]", pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
            )
        elif head[257:262] != b"ustar" and not _is_header(head[:_BLOCK]):
            raise refusal(_not_a_tar(head))

    def read(self, size: int) -> bytes:
        """Return `size` bytes, or b"" at the end. Raises InvalidRequest if the end is within."""
        pieces, missing = [], size
        while missing:
            try:
                piece = self._source.read(min(missing, _CHUNK))
            except (EOFError, zlib.error, pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # of this machine's disk
                raise refusal(
                    f"cannot be decompressed: {first_line(error)}; pack and upload it again"
                ) from error
            if not piece:
                break
            pieces.append(piece)
            missing -= len(piece)
        self._done += size - missing
        if self._done > self._limit:
            raise refusal(
                f"holds more than {self._limit:,} bytes (FAIRTUNE_MAX_UPLOAD_BYTES); upload only "
                f"{ADAPTER_CONFIG_FILE} and {ADAPTER_WEIGHTS_FILE}"
            )
        if missing and pieces:
            raise refusal("ends in the middle of a file: pack and upload it again")
        return b"".join(pieces)

    def content(self, size: int, target: BinaryIO | None) -> None:
        """Copy a file of `size` bytes, with its padding, to `target`; None: skip it."""
        left = size
        while left:
            piece = self.read(min(left, _CHUNK))
            if not piece:
                raise refusal("ends in the middle of a file: pack and upload it again")
            if target is not None:
                target.write(piece)
            left -= len(piece)
        self.read(-size % _BLOCK)

    def text(self, size: int) -> bytes:
        """Return an extended header of `size` bytes."""
        if size > MAX_TEXT_BYTES:
            raise refusal(f"has a header of {size:,} bytes: {_PACK}")
        data = self.read(size)
        if len(data) < size:
            raise refusal("ends in the middle of a header: pack and upload it again")
        self.read(-size % _BLOCK)
        return data


class _Members:
    """The files of the archive that have been read so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[Parts, Path | None] = {}
        """Every file; a path for those that were written."""

    def add(self, header: tarfile.TarInfo, pending: _Pending, reader: _Reader) -> None:
        name = header.name if pending.name is None else pending.name
        size = header.size if pending.size is None else pending.size
        parts = _parts(name)
        if header.type == tarfile.DIRTYPE:
            reader.content(size, None)
            return
        if header.type not in _FILES:
            kind = _KINDS.get(header.type, "not an ordinary file")
            remedy = "pack the files themselves (tar -h)" if header.type in _LINKS else _PACK
            raise refusal(f"{shown(name)} is {kind}: {remedy}")
        if name.endswith("/"):
            raise refusal(f"{shown(name)} is a file whose name ends in /: {_PACK}")
        if not parts or _is_of_macos(parts):
            reader.content(size, None)
            return
        if parts in self._files:
            raise refusal(f"{shown(name)} occurs twice: {_PACK}")
        self._files[parts] = None
        if parts[-1] not in _USED or len(parts) > 2:
            reader.content(size, None)
            return
        if parts[-1] != ADAPTER_WEIGHTS_FILE and size > MAX_TEXT_BYTES:
            if parts[-1] == ADAPTER_CONFIG_FILE:
                raise refusal(f"{shown(name)} has {size:,} bytes, which no configuration has")
            reader.content(size, None)
            return
        path = self._folder / f"{len(self._files)}"
        self._files[parts] = path
        with path.open("wb") as target:
            reader.content(size, target)

    def result(self) -> Unpacked:
        """Return the files of the directory. Raises InvalidRequest if one is missing."""
        if not self._files:
            raise refusal("holds no files: " + _PACK)
        root = self._root()
        paths = {
            parts[-1]: path
            for parts, path in self._files.items()
            if parts[:-1] == root and path is not None
        }
        config, weights = paths.get(ADAPTER_CONFIG_FILE), paths.get(ADAPTER_WEIGHTS_FILE)
        if config is None:
            raise refusal(self._missing(ADAPTER_CONFIG_FILE, root))
        if weights is None:
            if (*root, PICKLE_FILE) in self._files:
                raise refusal(
                    f"has its weights as {PICKLE_FILE}, a Python pickle, which is never opened: "
                    "load the adapter with peft where you trust it and save it again "
                    "(save_pretrained writes safetensors)"
                )
            raise refusal(self._missing(ADAPTER_WEIGHTS_FILE, root))
        ignored = sorted(
            shown("/".join(parts[len(root) :]))
            for parts in self._files
            if parts[:-1] != root or parts[-1] not in paths
        )
        return Unpacked(config, weights, paths.get(CARD_FILE), ignored[:MAX_LISTED], len(ignored))

    def _root(self) -> Parts:
        """Return the folder of the archive that is the PEFT directory: the top, or its folder."""
        tops = {parts[0] for parts in self._files}
        is_in_one_folder = len(tops) == 1 and all(len(parts) > 1 for parts in self._files)
        return tuple(tops) if is_in_one_folder else ()

    def _missing(self, name: str, root: Parts) -> str:
        """Return the problem that a file is missing, with the places where such a file is."""
        elsewhere = sorted("/".join(parts[:-1]) for parts in self._files if parts[-1] == name)
        location = f"in the folder {shown(root[0])}" if root else "at the top of the archive"
        if elsewhere:
            folders = ", ".join(map(shown, elsewhere[:3]))
            return (
                f"{name} is missing {location}; there is one in {folders}: pack that folder alone"
            )
        names = ", ".join(shown("/".join(parts)) for parts in sorted(self._files)[:5])
        return f"{name} is missing {location}, which holds {names}: {_PACK}"


def _parts(name: str) -> Parts:
    """Return the names of a path. Raises InvalidRequest for one that leaves the archive."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise refusal(
            f"{shown(name)} is a path that leads out of the archive: pack relative paths "
            "(tar -cf adapter.tar -C DIR .)"
        )
    return parts


def _is_of_macos(parts: Sequence[str]) -> bool:
    return parts[-1].startswith("._") or parts[-1] == ".DS_Store" or parts[0] == "__MACOSX"


def _header(block: bytes, number: int) -> tarfile.TarInfo:
    """Parse a header. Raises InvalidRequest."""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except _INVALID as error:
        if not number:
            raise refusal(_not_a_tar(block)) from error
        raise refusal(
            f"is damaged: entry {number + 1} has no valid header; pack and upload it again"
        ) from error
    if header.size < 0:
        raise refusal(f"is damaged: {shown(header.name)} has a negative size; {_PACK}")
    return header


def _is_header(block: bytes) -> bool:
    """Return True for a header, also in the format from before POSIX, and for an end block."""
    if block and not any(block):
        return True
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except _INVALID:
        return False
    return True


def _records(data: bytes, header: tarfile.TarInfo) -> dict[str, str]:
    """Return the records of an extended header: lines of the form ``LENGTH KEY=VALUE``."""
    records: dict[str, str] = {}
    position = 0
    while position < len(data) and data[position]:
        digits, space, _ = data[position : position + 12].partition(b" ")
        length = int(digits) if digits.isdigit() and space else 0
        record = data[position : position + length]
        key, equals, value = record[len(digits) + 1 :].partition(b"=")
        if not record.endswith(b"\n") or len(record) < length or not equals:
            raise refusal(f"is damaged: the extended header of {shown(header.name)}; {_PACK}")
        text = value[:-1].decode("utf-8", "surrogateescape")
        records[key.decode("utf-8", "surrogateescape")] = text
        position += length
    return records


def _not_a_tar(head: bytes) -> str:
    kind: Any = kind_of(head) or page_kind(head)
    if not head:
        return "is empty: " + _PACK
    if kind is None:
        return f"is no tar archive: {_PACK}"
    if kind.name == "a zip archive":
        return f"is a zip archive, not a tar: unpack it, then {_PACK}"
    if "LFS" in kind.name or "HTML" in kind.name:
        return f"is {kind.name}, not a tar archive; {kind.remedy}"
    return f"is {kind.name}, not a tar archive: {_PACK}"
