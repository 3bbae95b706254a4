"""Files that are not plain text, recognized by their first bytes, and what to do with them."""

import codecs
import re
from dataclasses import dataclass

GZIP = b"\x1f\x8b"
ZIP_START = b"PK"
HEAD_BYTES = 65536
"""Number of bytes from a file's start by which its content is recognized."""

_DECOMPRESS = "decompress it first"
_CONVERT = "convert it to a text file, such as CSV or JSON lines"
_SHEET = "save the sheet as CSV UTF-8"
_SAMPLE_BYTES = 512
_BINARY_SHARE = 0.3
_CONTROLS = bytes({*range(32), 127} - set(b"\t\n\v\f\r\x1a\x1b"))


@dataclass(frozen=True, slots=True)
class ContentKind:
    """A kind of content that no door reads: its name with the article, and the remedy."""

    name: str
    remedy: str

    def __str__(self) -> str:
        return f"is {self.name}, not plain text; {self.remedy}"


_GZIP = ContentKind("a gzip file", _DECOMPRESS)
_EXCEL = ContentKind("an Excel workbook (.xlsx)", _SHEET)
_BINARY = ContentKind("a binary file", f"{_CONVERT}, in UTF-8")
_SIGNATURES: tuple[tuple[bytes, ContentKind], ...] = (
    (GZIP, _GZIP),
    (b"BZh", ContentKind("a bzip2 file", _DECOMPRESS)),
    (b"\xfd7zXZ\x00", ContentKind("an xz file", _DECOMPRESS)),
    (b"\x28\xb5\x2f\xfd", ContentKind("a Zstandard file", _DECOMPRESS)),
    (b"\x04\x22\x4d\x18", ContentKind("an LZ4 file", _DECOMPRESS)),
    (b"7z\xbc\xaf\x27\x1c", ContentKind("a 7-Zip archive", "unpack it first")),
    (b"Rar!\x1a\x07", ContentKind("a RAR archive", "unpack it first")),
    (b"PAR1", ContentKind("a Parquet file", _CONVERT)),
    (b"PARE", ContentKind("an encrypted Parquet file", _CONVERT)),
    (b"ARROW1", ContentKind("an Arrow (Feather) file", _CONVERT)),
    (b"FEA1", ContentKind("a Feather file", _CONVERT)),
    (b"\xff\xff\xff\xff\x10\x00\x00\x00", ContentKind("an Arrow stream", _CONVERT)),
    (b"Obj\x01", ContentKind("an Avro file", _CONVERT)),
    (b"ORC", ContentKind("an ORC file", _CONVERT)),
    (b"SQLite format 3\x00", ContentKind("an SQLite database", _CONVERT)),
    (b"\x89HDF\r\n\x1a\n", ContentKind("an HDF5 file", _CONVERT)),
    (b"\x93NUMPY", ContentKind("a NumPy array", _CONVERT)),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        ContentKind("an Office file, such as an Excel workbook (.xls)", _SHEET),
    ),
    (b"%PDF-", ContentKind("a PDF", _CONVERT)),
    (b"{\\rtf", ContentKind("a rich-text document (RTF)", _CONVERT)),
    (b"\x89PNG\r\n\x1a\n", ContentKind("a PNG image", _CONVERT)),
    (b"\xff\xd8\xff", ContentKind("a JPEG image", _CONVERT)),
    (b"GIF8", ContentKind("a GIF image", _CONVERT)),
    (
        b"version https://git-lfs.github.com/spec/",
        ContentKind("a Git LFS pointer", "fetch the file itself with git lfs pull"),
    ),
)
_PAGE_TAGS = re.compile(rb"<(!doctype html|html|head|body|title|meta|script|div|p|h[1-6])\b")
_XML_TAGS = re.compile(rb"<[a-z_][\w:.-]*(\s[^<>]*)?/?>\s*<|<\?xml\b|<!doctype\b")
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_PAGE = ContentKind("an HTML page", "download the file itself, not the page that shows it")
_XML = ContentKind("an XML file", _CONVERT)


def kind_of(head: bytes, tail: bytes = b"") -> ContentKind | None:
    """Return the kind of a file with this beginning; None for text of whatever encoding.

    `tail` is the end of the file, where a zip archive lists its members.
    """
    return signed_kind(head, tail) or (_BINARY if is_binary(head) else None)


def signed_kind(head: bytes, tail: bytes = b"") -> ContentKind | None:
    """Return the kind of a file with a known signature."""
    sample = head[:_SAMPLE_BYTES]
    is_plain = not _count_controls(sample) and _is_utf8(sample)
    for signature, kind in _SIGNATURES:
        # A text may begin with the letters of a signature.
        if head.startswith(signature) and not (is_plain and signature.isalnum()):
            return kind
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return _zip_kind(head + tail)
    if head[257:262] == b"ustar":
        return ContentKind("a tar archive", "unpack it first")
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and head[2:]:
        return ContentKind("a Python pickle", _CONVERT)
    return None


def page_kind(head: bytes) -> ContentKind | None:
    """Return the kind of a file that is markup instead of rows, as from a failed download."""
    start = head.lstrip()[:_SAMPLE_BYTES].lower()
    if start.startswith(b"<!--"):
        start = _COMMENT.sub(b"", start).lstrip()
    if _PAGE_TAGS.match(start):
        return _PAGE
    return _XML if _XML_TAGS.match(start) else None


def _zip_kind(names: bytes) -> ContentKind:
    if b"xl/" in names:
        return _EXCEL
    if b"word/" in names:
        return ContentKind("a Word document (.docx)", _CONVERT)
    if b"opendocument.spreadsheet" in names:
        return ContentKind("an OpenDocument spreadsheet (.ods)", _SHEET)
    return ContentKind("a zip archive", "unpack it first")


def is_binary(head: bytes) -> bool:
    """Return True if the first bytes have control characters and are not UTF-8.

    If the first line is text, they are flaws of the rows after it, unless there are too many.
    """
    sample = head[:_SAMPLE_BYTES]
    controls = _count_controls(sample)
    if controls > _BINARY_SHARE * len(sample):
        return True
    first_line = sample.partition(b"\n")[0]
    if not controls or _is_utf8(sample):
        return False
    return _count_controls(first_line) > 0 or not _is_utf8(first_line)


def _count_controls(sample: bytes) -> int:
    return sum(sample.count(code) for code in _CONTROLS)


def _is_utf8(sample: bytes) -> bool:
    """Return True for valid UTF-8, which may end within a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True
