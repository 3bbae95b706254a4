"""A tar of files of the store: its length is known before, and it is what tar makes of them."""

import io
import tarfile

import pytest

from service.archives import CHUNK, Member, tar_size, tar_stream
from service.domain.errors import NotFound

CONTENTS = {
    "a": b"",
    "b": b"one",
    "c": bytes(512),
    "d": b"x" * (2 * CHUNK + 1),
}


def members(contents=CONTENTS, folder="merge_1"):
    return [
        Member(f"{folder}/{key}.safetensors", key, len(content), 1.7e9)
        for key, content in contents.items()
    ]


def open_file(key):
    return io.BytesIO(CONTENTS[key])


def test_the_files_come_out_as_they_went_in():
    given = members()
    pieces = list(tar_stream(given, open_file))
    assert max(map(len, pieces)) <= CHUNK
    whole = b"".join(pieces)
    assert len(whole) == tar_size(given)
    with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
        found = {one.name: archive.extractfile(one).read() for one in archive}
        assert {one.mtime for one in archive} == {1_700_000_000}
        assert {one.mode for one in archive} == {0o644}
    assert found == {one.name: CONTENTS[one.key] for one in given}


def test_an_empty_one_is_a_tar_too():
    whole = b"".join(tar_stream([], open_file))
    assert len(whole) == tar_size([])
    with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
        assert archive.getnames() == []


def test_long_names_and_large_files_have_their_length_counted():
    long = members(folder="a" * 300)
    whole = b"".join(tar_stream(long, open_file))
    assert len(whole) == tar_size(long)
    with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
        assert archive.getnames() == [one.name for one in long]
    # Twenty gigabytes do not fit into the eleven octal digits of the old format.
    large = Member("model.safetensors", "b", 20 * 10**9, 0)
    header = next(tar_stream([large], open_file))
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == large.size
    assert tar_size([large]) == 512 + large.size + -large.size % 512 + 1024


def test_a_file_is_opened_only_when_its_turn_comes():
    opened = []

    def opening(key):
        opened.append(key)
        return open_file(key)

    stream = tar_stream(members(), opening)
    next(stream)
    assert opened == []
    next(stream)
    assert opened == ["a"]


def test_a_file_that_is_shorter_or_gone_ends_it_before_its_length():
    given = [one._replace(size=one.size + 1) for one in members({"b": CONTENTS["b"]})]
    with pytest.raises(OSError, match="1 bytes shorter"):
        list(tar_stream(given, open_file))

    def gone(key):
        raise NotFound(key)

    with pytest.raises(NotFound):
        list(tar_stream(members(), gone))


def test_a_file_that_grew_is_cut_off():
    given = [Member("b", "b", 2, 0)]
    whole = b"".join(tar_stream(given, open_file))
    with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
        assert archive.extractfile("b").read() == b"on"
