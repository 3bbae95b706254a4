"""Archives that are made while they are sent."""

import io
import itertools
import shutil
import subprocess
import tarfile
import tracemalloc
import zipfile
from datetime import UTC, datetime

import pytest

from service.artifacts.archives import Member, tar, tar_size, zip_stored

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def member(name: str, content: bytes) -> Member:
    return Member(name, len(content), lambda: [content[:7], content[7:]], NOON)


FILES = {
    "empty": b"",
    "adapter_config.json": b"{}",
    "a/b/block": b"x" * 512,
    "more": b"y" * 513,
    "ü" * 90 + "/" + "long" * 40: b"long name",
}
MEMBERS = [member(name, content) for name, content in FILES.items()]


def test_a_tar_holds_the_files_and_is_as_long_as_was_said():
    data = b"".join(tar(MEMBERS))
    assert len(data) == tar_size(MEMBERS)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert {one.name: archive.extractfile(one).read() for one in archive} == FILES
        assert {one.mtime for one in archive.getmembers()} == {NOON.timestamp()}
    assert b"".join(tar(MEMBERS)) == data


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar here")
def test_the_systems_tar_reads_it(tmp_path):
    subprocess.run(["tar", "-x", "-C", tmp_path], input=b"".join(tar(MEMBERS)), check=True)
    for name, content in FILES.items():
        assert (tmp_path / name).read_bytes() == content


def test_a_zip_holds_the_files():
    data = b"".join(zip_stored(MEMBERS))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {one: archive.read(one) for one in archive.namelist()} == FILES


@pytest.mark.parametrize("archived", [tar, zip_stored])
def test_files_of_any_size_take_no_more_memory_than_a_piece(archived):
    size = 9 << 30  # more than a plain header of either can say
    piece = bytes(64 << 20)

    def chunks():
        return itertools.repeat(piece, size // len(piece))

    members = [Member("model.safetensors", size, chunks)]
    if archived is tar:
        assert tar_size(members) > size
    tracemalloc.start()
    try:
        for data in itertools.islice(archived(members), 20):
            assert len(data) <= len(piece) + 1024
        assert tracemalloc.get_traced_memory()[1] < 4 * len(piece)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("archived", [tar, zip_stored])
@pytest.mark.parametrize("content", [b"short", b"too long by far"])
def test_a_file_of_another_size_breaks_the_archive_off(archived, content):
    with pytest.raises(ValueError, match="a is not of 10 bytes"):
        list(archived([Member("a", 10, lambda: [content])]))
