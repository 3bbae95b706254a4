"""Bytes that come in as text: every encoding gives the same text, and no other content a riddle."""

import gzip
import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.decoding import NotTextError, form_text, open_text, text_lines, text_of

ENCODINGS = {
    "utf-8": b"",
    "utf-16-le": b"\xff\xfe",
    "utf-16-be": b"\xfe\xff",
    "utf-32-le": b"\xff\xfe\0\0",
    "utf-32-be": b"\0\0\xfe\xff",
}
PLAIN = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], include_characters="\n\r\t"), max_size=200
)
SMALL = 1 << 20


def compressed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


@given(text=PLAIN, encoding=st.sampled_from(sorted(ENCODINGS)), packed=st.booleans())
def test_a_marked_text_is_read_in_any_encoding(text, encoding, packed):
    mark = ENCODINGS[encoding] or b"\xef\xbb\xbf"
    data = mark + text.encode(encoding)
    if encoding == "utf-16-le" and text.startswith("\0"):
        return  # the mark of UTF-32
    data = compressed(data) if packed else data
    assert text_of(data, max_bytes=SMALL) == (text.lstrip("\ufeff") if mark[0] == 0xEF else text)


@given(
    text=PLAIN,
    start=st.sampled_from(['{"', "id", "[{", "a,"]),
    encoding=st.sampled_from(sorted(ENCODINGS)),
)
def test_an_unmarked_text_that_starts_in_ascii_is_read(text, start, encoding):
    assert text_of((start + text).encode(encoding)) == start + text


@given(st.binary(max_size=400))
def test_any_bytes_are_text_or_are_named(data):
    try:
        text_of(data, max_bytes=SMALL)
    except NotTextError as error:
        detail = error.detail
    else:
        return
    assert detail.startswith(("is ", "begins as "))
    assert "codec" not in detail
    assert ";" in detail  # the remedy


@given(text=PLAIN.filter(lambda text: not text.startswith("\ufeff")))
def test_text_in_utf_8_stays_as_it_is(text):
    assert text_of(text.encode()) == text
    assert form_text(text) == text


@given(text=PLAIN, encoding=st.sampled_from(sorted(ENCODINGS)))
def test_a_form_field_is_read_although_the_server_has_decoded_it(text, encoding):
    data = (ENCODINGS[encoding] or b"\xef\xbb\xbf") + ('{"a": 1}' + text).encode(encoding)
    try:
        decoded = data.decode()
    except UnicodeDecodeError:
        decoded = data.decode("latin-1")  # as python-multipart's caller does
    assert form_text(decoded) == '{"a": 1}' + text


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as members:
        for name in names:
            members.writestr(name, "content")
    return file.getvalue()


NAMED = {
    "zip": (archive("train.jsonl"), "a zip archive, not plain text; unpack it first"),
    "xlsx": (archive("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook (.xlsx)"),
    "docx": (archive("[Content_Types].xml", "word/document.xml"), "a Word document (.docx)"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an Excel workbook (.xls)"),
    "parquet": (b"PAR1\x15\x04\x15\x94PAR1", "a Parquet file, not plain text; convert it"),
    "feather": (b"ARROW1\0\0", "an Arrow (Feather) file"),
    "bzip2": (b"BZh91AY&SY\x00\x9f", "a bzip2 file"),
    "zstd": (b"\x28\xb5\x2f\xfd\x24", "a Zstandard file"),
    "xz": (b"\xfd7zXZ\0\0\4", "an xz file"),
    "tar": (b"train.jsonl".ljust(257, b"\0") + b"ustar\x0000", "a tar archive"),
    "pickle": (b"\x80\x04\x95\x0a", "a Python pickle"),
    "SQLite": (b"SQLite format 3\0", "an SQLite database"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3", "a PDF"),
    "PNG": (b"\x89PNG\r\n\x1a\n\0", "a PNG image"),
    "NULs": (bytes(1000), "a binary file"),
    "noise": (bytes(range(256)) * 3, "a binary file"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "gzip of zip": (compressed(archive("a")), "is a gzip file whose content is a zip archive"),
    "torn gzip": (compressed(b"text" * 999)[:-9], "is a damaged gzip file"),
    "large gzip": (compressed(bytes(40) + b"x" * 2 * SMALL), "a binary file|more than 1,048,576"),
    "UTF-16 with an odd byte": (b"\xff\xfea\0b", "is not valid UTF-16"),
    "UTF-16 with half a pair": (b"\xff\xfe\x3d\xd8a\0", "is not valid UTF-16"),
    "Windows-1252": (
        "text,label\ncafé “x”".encode("cp1252"),
        "is not valid UTF-8 at byte 4 of line 2 (it may be in Windows-1252",
    ),
}


@pytest.mark.parametrize("case", NAMED)
def test_what_is_no_text_is_named_with_the_remedy(case):
    data, message = NAMED[case]
    with pytest.raises(NotTextError) as caught:
        text_of(data, max_bytes=SMALL)
    assert any(part in caught.value.detail for part in message.split("|"))


@pytest.mark.parametrize("text", ["PAR1 is no file", "GIF8", "ORC\nb", "BZh", "ARROW1\r\n\u00e9"])
def test_a_text_may_begin_with_the_letters_of_a_signature(text):
    assert text_of(text.encode()) == text
    assert form_text(text) == text


def test_gzip_is_named_where_nothing_is_decompressed():
    with pytest.raises(NotTextError, match="is a gzip file, not plain text; decompress it first"):
        text_of(compressed(b"text"))


def test_a_compressed_text_is_read_up_to_a_maximum():
    with pytest.raises(NotTextError, match="more than 1,048,576 bytes of content"):
        open_text(io.BytesIO(compressed(b"a,b\n" * SMALL)), max_bytes=SMALL).read()


@given(lines=st.lists(st.text(st.characters(exclude_characters="\r\n"), min_size=1)))
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_in_three_ways(lines, end):
    assert text_lines(end.join(lines)) == lines
    assert text_lines("".join(line + end for line in lines)) == lines
