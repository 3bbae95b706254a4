"""Bytes of files, bodies and standard input as text: byte order marks, UTF-16, UTF-32, gzip.

Every door through which text comes in uses this module, so that all read the same encodings and
name what they cannot read.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import re
import unicodedata
import zlib
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from service.domain.content_kinds import (
    GZIP,
    HEAD_BYTES,
    ZIP_START,
    is_binary,
    kind_of,
    signed_kind,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK_BYTES = 65536
_UTF8_MARK = codecs.BOM_UTF8
# UTF-32 before UTF-16, whose little-endian mark begins the other's.
_MARKS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Two ASCII characters without a mark, as in RFC 4627, section 3.
_ASCII = rb"[\t\n\r\x20-\x7e]"
_UNMARKED: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), encoding)
    for pattern, encoding in (
        (rb"(?:%b\0\0\0){2}" % _ASCII, "utf-32-le"),
        (rb"(?:\0\0\0%b){2}" % _ASCII, "utf-32-be"),
        (rb"(?:%b\0){2}" % _ASCII, "utf-16-le"),
        (rb"(?:\0%b){2}" % _ASCII, "utf-16-be"),
    )
)
_SAMPLE_CHARACTERS = 4096
_NOT_WRITTEN = frozenset({"Cc", "Cn", "Co", "Cs"})
_UNPRINTABLE = re.compile(r"[\0-\x08\x0e-\x19\x1c-\x1f\x7f]")
_LINE_END = re.compile(r"\r\n|\n|\r")


class NotTextError(ValueError):
    """The content cannot be read as text.

    `detail` is a predicate without a subject that says what it is and what to do, such as "is a
    Parquet file, not plain text; convert it …".
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Encoding:
    """A Unicode encoding, and the length of the byte order marks before the text."""

    name: str
    mark_bytes: int = 0

    @property
    def label(self) -> str:
        """The name for people, without the order of bytes: UTF-8, UTF-16 or UTF-32."""
        return self.name.upper().removesuffix("-LE").removesuffix("-BE")


def encoding_of(head: bytes) -> Encoding:
    """Return the encoding of a text with this beginning: UTF-8 unless a mark or NULs tell.

    A text of UTF-16 without a mark may begin with any letters; its line ends have NULs.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return Encoding(name, len(mark))
    for pattern, name in _UNMARKED:
        if pattern.match(head) and _is_plain(head, name):
            return Encoding(name)
    if b"\0" in head and is_binary(head) and not signed_kind(head):
        # ASCII characters have their NULs at odd positions if the low byte comes first.
        order = ("le", "be") if head[1::2].count(0) > head[::2].count(0) else ("be", "le")
        name = f"utf-16-{order[0]}"
        if _is_written(head, name):
            return Encoding(name)
    marks = 0
    while head.startswith(_UTF8_MARK, marks):  # some tools add one to a text that has one
        marks += len(_UTF8_MARK)
    return Encoding("utf-8", marks)


def _is_plain(head: bytes, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        return _UNPRINTABLE.search(decoder.decode(head)) is None
    except UnicodeDecodeError:
        return False


def _is_written(head: bytes, encoding: str) -> bool:
    """Return True if the bytes are lines of assigned characters in an encoding of UTF-16."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)[:_SAMPLE_CHARACTERS]
    except UnicodeDecodeError:
        return False
    return _LINE_END.search(text) is not None and not any(
        unicodedata.category(character) in _NOT_WRITTEN and character not in "\t\n\r"
        for character in text
    )


def open_text(file: BinaryIO, *, max_bytes: int | None = None) -> BinaryIO:
    """Return a stream of `file`'s text as UTF-8 without a byte order mark, from its start.

    A gzip file is decompressed to at most `max_bytes`, unless that is null. Bytes that are not
    UTF-8 are passed on if the text is in no other encoding. Raises NotTextError, and so does the
    stream.
    """
    stream: BinaryIO = file
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if head.startswith(GZIP) and max_bytes is not None:
        head = _decompressed(file, max_bytes).read(HEAD_BYTES)
        stream = _decompressed(file, max_bytes)
    encoding = encoding_of(head)
    tail = _tail(file) if stream is file and head.startswith(ZIP_START) else b""
    if encoding.name == "utf-8" and (kind := kind_of(head, tail)):
        detail = str(kind)
        raise NotTextError(detail if stream is file else f"is a gzip file whose content {detail}")
    if encoding != Encoding("utf-8") and (kind := signed_kind(_as_utf8(head, encoding))):
        raise NotTextError(str(kind))
    if stream is file:
        file.seek(encoding.mark_bytes)
    else:
        stream.read(encoding.mark_bytes)
    return stream if encoding.name == "utf-8" else _buffered(_Utf8Reader(stream, encoding))


def _as_utf8(head: bytes, encoding: Encoding) -> bytes:
    return head[encoding.mark_bytes :].decode(encoding.name, errors="ignore").encode()


def text_of(data: bytes, *, max_bytes: int | None = None) -> str:
    """Return the text of `data` without a byte order mark; see `open_text`.

    Raises NotTextError, for invalid UTF-8 too.
    """
    content = open_text(io.BytesIO(data), max_bytes=max_bytes).read()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        start = content.rfind(b"\n", 0, error.start) + 1
        end = content.find(b"\n", error.start)
        raw = content[start : end if end >= 0 else None]
        detail = f"is not valid UTF-8 at byte {error.start - start + 1} of line {line}"
        raise NotTextError(detail + utf8_remedy(raw)) from None


def text_lines(text: str) -> list[str]:
    """Return the lines of `text`, which end with LF, CRLF or CR; the last may have no end.

    A byte order mark before a line is left out: files that begin with one may have been joined.
    """
    lines = [line.removeprefix("\ufeff") for line in _LINE_END.split(text)]
    return lines if lines[-1] else lines[:-1]


def form_text(value: str) -> str:
    """Return the text of a multipart form field, which the server has decoded as UTF-8 or Latin-1.

    Raises NotTextError.
    """
    value = value.lstrip("\ufeff")
    try:
        raw = value.encode("latin-1")
    except UnicodeEncodeError:
        return value
    # Latin-1 was used for bytes that are not UTF-8, such as the marks of UTF-16.
    if encoding_of(raw).name != "utf-8" or signed_kind(raw):
        return text_of(raw)
    return value


def utf8_remedy(line: bytes) -> str:
    """Return the end of a message about a line that is not UTF-8: the likely cause, the remedy."""
    if _CESU.search(line):
        cause = " (it may be in CESU-8, the UTF-8 of some databases)"
    else:
        cause = "" if any(byte in _UNUSED_1252 for byte in line) else _LEGACY
    return f"{cause}; save it as UTF-8"


_UNUSED_1252 = b"\x81\x8d\x8f\x90\x9d"
_LEGACY = " (it may be in Windows-1252 or another encoding)"
_CESU = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf]")


def is_blank(line: bytes) -> bool:
    """Return True for a line of white space, byte order marks, or the end-of-file mark of DOS."""
    return not line.replace(_UTF8_MARK, b"").strip(b" \t\r\n\v\f\x1a")


def _tail(file: BinaryIO) -> bytes:
    position = file.tell()
    file.seek(0, os.SEEK_END)
    file.seek(max(position, file.tell() - HEAD_BYTES))
    tail = file.read(HEAD_BYTES)
    file.seek(position)
    return tail


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _BlockReader(io.RawIOBase):
    """A raw stream of the blocks that `_next_block` returns; an empty one ends it."""

    def __init__(self) -> None:
        super().__init__()
        self._block = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if not self._block:
            self._block = memoryview(self._next_block())
        target = memoryview(buffer)
        size = min(len(target), len(self._block))
        target[:size] = self._block[:size]
        self._block = self._block[size:]
        return size

    @abstractmethod
    def _next_block(self) -> bytes:
        """Return the next decoded bytes; none at the end."""


def _buffered(reader: _BlockReader) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(reader, _BLOCK_BYTES))


class _Utf8Reader(_BlockReader):
    """The text of a stream in another encoding, as UTF-8."""

    def __init__(self, stream: _Readable, encoding: Encoding) -> None:
        super().__init__()
        self._stream = stream
        self._label = encoding.label
        self._decoder = codecs.getincrementaldecoder(encoding.name)()

    def _next_block(self) -> bytes:
        raw = b"start"
        text = ""
        while raw and not text:
            raw = self._stream.read(_BLOCK_BYTES)
            try:
                text = self._decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                raise NotTextError(
                    f"begins as {self._label} but is not valid {self._label} ({error.reason}); "
                    "save it as UTF-8"
                ) from None
        return text.encode()


def _decompressed(file: BinaryIO, max_bytes: int) -> BinaryIO:
    file.seek(0)
    return _buffered(_GzipReader(file, max_bytes))


class _GzipReader(_BlockReader):
    """The content of a gzip file, of a bounded size."""

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        super().__init__()
        self._content = gzip.GzipFile(fileobj=file, mode="rb")
        self._max = max_bytes
        self._size = 0

    def _next_block(self) -> bytes:
        try:
            block = self._content.read(_BLOCK_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            reason = str(error)
            if isinstance(error, EOFError):
                reason = "it ends too early"
            elif reason.startswith("Not a gzipped file"):
                reason = "other bytes follow its end"
            raise NotTextError(f"is a damaged gzip file ({reason}); compress it again") from None
        self._size += len(block)
        if self._size > self._max:
            raise NotTextError(
                f"is a gzip file with more than {self._max:,} bytes of content, the maximum; split "
                "it"
            )
        return block
