"""One code path on both stores: a directory, and a bucket of a real S3 server."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from service.artifacts import ArtifactStore, DamagedFile, StoredFile, StoreUnavailable
from service.artifacts.bucket import PART
from service.domain.errors import NotFound
from tests.faults.proxy import Proxy

LARGE = 2 * PART + 12345


@pytest.fixture(params=["directory", "bucket"])
def store(request, tmp_path) -> ArtifactStore:
    if request.param == "directory":
        return ArtifactStore((tmp_path / "store").as_uri())
    return ArtifactStore(request.getfixturevalue("bucket_url"))


@pytest.fixture
def bucket(bucket_url) -> ArtifactStore:
    return ArtifactStore(bucket_url)


@pytest.fixture
def put(store, tmp_path):
    def put(key: str, content: bytes = b"0123456789") -> StoredFile:
        source = tmp_path / "source"
        source.write_bytes(content)
        return store.put_file(source, key)

    return put


def keys(store, prefix="") -> list[str]:
    return sorted(one.key for one in store.entries(prefix) if one.half is None)


@pytest.mark.parametrize("size", [0, 1, 10, PART - 1, PART, PART + 1, LARGE])
def test_what_goes_in_comes_out_byte_for_byte(store, put, tmp_path, size):
    content = os.urandom(1 << 20) * (size // (1 << 20) + 1)
    content = content[:size]
    stored = put("runs/run_1/ü ß+%/file", content)
    assert stored == StoredFile(size, hashlib.sha256(content).hexdigest())
    store.fetch("runs/run_1/ü ß+%/file", tmp_path / "out" / "copy", stored)
    assert (tmp_path / "out" / "copy").read_bytes() == content
    assert b"".join(store.verified("runs/run_1/ü ß+%/file", stored)) == content
    with store.local("runs/run_1/ü ß+%/file", stored) as path:
        assert path.read_bytes() == content
    entry = store.stat("runs/run_1/ü ß+%/file")
    assert (entry.key, entry.size, entry.half) == ("runs/run_1/ü ß+%/file", size, None)
    assert list(store.entries()) == [entry]


def test_parts_of_a_file(store, put):
    content = bytes(range(256)) * 9000
    put("a/b", content)
    for start, end in ((0, 1), (5, 5 + (1 << 20)), (2_000_000, None), (0, len(content))):
        assert b"".join(store.chunks("a/b", start, end)) == content[start:end]
    with store.open("a/b", 100) as file:
        assert file.read(3) == content[100:103]
        assert file.read() == content[103:]
    with pytest.raises(OSError, match="too soon"):
        list(store.chunks("a/b", 10, len(content) + 1))


def test_the_first_bytes_of_a_file_that_grows(store, tmp_path):
    source = tmp_path / "log"
    source.write_bytes(b"0123456789")
    assert store.put_file(source, "part", 4).size == 4
    assert b"".join(store.chunks("part")) == b"0123"


def test_what_is_not_there(store, tmp_path):
    assert not store.exists("a/b")
    for look in (store.stat, store.open, store.chunks, lambda key: store.local(key).__enter__()):
        with pytest.raises(NotFound, match="a/b"):
            look("a/b")
    with pytest.raises(DamagedFile, match="a/b"):
        store.fetch("a/b", tmp_path / "copy")
    store.remove_tree("a")
    assert store.remove_except("a", set()) == 0
    assert list(store.entries("a")) == []
    for key in ("../b", "/b", "a//b", ""):
        with pytest.raises(NotFound):
            store.open(key)


def test_a_file_that_is_another_than_was_put_is_noticed(store, put, tmp_path):
    expected = put("a/b", b"0" * 3_000_000)
    put("a/b", b"0" * 2_999_999 + b"1")
    with pytest.raises(DamagedFile, match="a/b"):
        store.fetch("a/b", tmp_path / "copy", expected)
    got = []
    with pytest.raises(DamagedFile, match="a/b"):
        got.extend(store.verified("a/b", expected))
    assert len(b"".join(got)) < 3_000_000  # nobody takes it for the whole


def test_a_copy_is_compared_with_what_was_put_and_kept(bucket, tmp_path, s3_server):
    source = tmp_path / "source"
    source.write_bytes(b"rows")
    stored = bucket.put_file(source, "datasets/a")
    with pytest.raises(DamagedFile), bucket.local("datasets/a", StoredFile(4, "0" * 64)):
        pass
    with bucket.local("datasets/a", stored) as first:
        pass
    with bucket.local("datasets/a", stored) as second, bucket.local("datasets/a", stored) as third:
        assert first == second == third
        assert third.read_bytes() == b"rows"


def test_copies_that_nobody_reads_go_when_there_are_too_many(bucket, tmp_path):
    bucket._copies._limit = 10
    source = tmp_path / "source"
    for name in "abc":
        source.write_bytes(name.encode() * 6)
        bucket.put_file(source, name)
    with bucket.local("a") as a:
        with bucket.local("b") as b:
            assert (a.exists(), b.exists()) == (True, True)
        assert (a.exists(), b.exists()) == (True, False)  # a is being read
        with bucket.local("b") as b:
            assert b.read_bytes() == b"bbbbbb"
    with bucket.local("c") as c:
        pass
    assert (a.exists(), b.exists(), c.exists()) == (False, False, True)


def test_removing_takes_what_lies_below_and_nothing_beside(store, put):
    for key in ("runs/a/1", "runs/a/deep/2", "runs/a/kept", "runs/ab/3", "datasets/4"):
        put(key)
    assert store.remove_except("runs/a", {"runs/a/kept", "runs/ab/3"}) == 2
    assert keys(store) == ["datasets/4", "runs/a/kept", "runs/ab/3"]
    store.remove_tree("runs/a")
    store.remove_tree("runs/a")
    assert keys(store) == ["datasets/4", "runs/ab/3"]
    store.remove([*store.entries("runs"), *store.entries("runs")])
    assert keys(store) == ["datasets/4"]


def test_more_files_than_one_request_removes(bucket, bucket_url, s3_server):
    name, _, prefix = bucket_url.removeprefix("s3://").partition("/")
    client = s3_server.client()
    for number in range(1001):
        client.put_object(Bucket=name, Key=f"{prefix}/runs/a/{number}", Body=b"")
    assert bucket.remove_except("runs/a", {"runs/a/7"}) == 1000
    assert keys(bucket) == ["runs/a/7"]


def behind(s3_server, monkeypatch) -> Proxy:
    """A way to the server that can be cut."""
    proxy = Proxy(lambda: socket.create_connection(("127.0.0.1", s3_server.port)))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{proxy.address}")
    return proxy


class Source:
    """A file that a put reads from for as long as the test wants: a pipe with a name."""

    def __init__(self, path) -> None:
        os.mkfifo(path)
        self.path = path

    def open(self):
        return self.path.open("wb", buffering=0)


def test_an_upload_that_fails_half_way_leaves_nothing_visible(
    bucket_url, s3_server, monkeypatch, tmp_path
):
    proxy = behind(s3_server, monkeypatch)
    store = ArtifactStore(bucket_url)
    source = Source(tmp_path / "source")
    errors = []

    def put() -> None:
        try:
            store.put_file(source.path, "runs/a/file")
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    direct = s3_server.client()
    name = bucket_url.removeprefix("s3://").partition("/")[0]
    with source.open() as pipe:
        pipe.write(b"x" * PART)
        pipe.write(b"x" * PART)  # taken only once the part before it was sent
        assert len(direct.list_multipart_uploads(Bucket=name)["Uploads"]) == 1
        proxy.cut()
        pipe.write(b"x" * 10)
    thread.join(timeout=60)
    (error,) = errors
    assert isinstance(error, StoreUnavailable)
    proxy.restore()
    assert keys(store) == []
    with pytest.raises(NotFound):
        store.open("runs/a/file")
    (half,) = store.entries("runs")  # the way was cut for the abort, too
    assert (half.key, half.half is None) == ("runs/a/file", False)
    assert store.remove_except("runs/a", set()) == 1
    assert "Uploads" not in direct.list_multipart_uploads(Bucket=name)
    proxy.close()


_PUT = """
import pathlib, sys
from service.artifacts import ArtifactStore
ArtifactStore(sys.argv[1]).put_file(pathlib.Path(sys.argv[2]), "runs/a/file")
"""


def test_a_process_killed_while_it_uploads_leaves_a_half_that_is_found(store, tmp_path, request):
    if "directory" in request.node.name:
        url = (tmp_path / "store").as_uri()
    else:
        url = request.getfixturevalue("bucket_url")
    source = Source(tmp_path / "source")
    process = subprocess.Popen([sys.executable, "-c", _PUT, url, source.path])
    with source.open() as pipe:
        pipe.write(b"x" * PART)
        pipe.write(b"x" * PART)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert keys(store) == []
    assert not store.exists("runs/a/file")
    (half,) = store.entries()
    assert half.half is not None
    assert half.key.startswith("runs/a/")
    store.remove([half])
    assert list(store.entries()) == []


def test_a_broken_connection_is_made_anew_where_it_broke(
    bucket_url, s3_server, monkeypatch, tmp_path
):
    content = os.urandom(1 << 20) * 24
    source = tmp_path / "source"
    source.write_bytes(content)
    proxy = behind(s3_server, monkeypatch)
    store = ArtifactStore(bucket_url)
    stored = store.put_file(source, "a")
    got = b""
    for number, chunk in enumerate(store.verified("a", stored)):
        got += chunk
        if number in (2, 9):
            proxy.cut()
            proxy.restore()
    assert got == content
    proxy.close()


def test_a_bucket_that_is_away_says_so_whatever_is_asked(
    bucket_url, s3_server, monkeypatch, tmp_path
):
    proxy = behind(s3_server, monkeypatch)
    store = ArtifactStore(bucket_url)
    store.check()
    proxy.cut()
    source = tmp_path / "source"
    source.write_bytes(b"x")
    for ask in (
        store.check,
        lambda: store.put_file(source, "a"),
        lambda: store.fetch("a", tmp_path / "copy"),
        lambda: store.open("a"),
        lambda: store.exists("a"),
        lambda: list(store.entries()),
        lambda: store.remove_tree("a"),
        lambda: store.remove_except("a", set()),
        lambda: store.local("a").__enter__(),
    ):
        with pytest.raises(StoreUnavailable):
            ask()
    assert not store.delete_tree("a")  # what no row names can wait
    proxy.close()


def test_a_bucket_that_is_not_there(s3_server, bucket_url):
    with pytest.raises(StoreUnavailable, match="NoSuchBucket"):
        ArtifactStore("s3://no-such-bucket").check()


def test_making_one_asks_nobody(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)

    def refuse(*_):
        raise AssertionError("a connection was made")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    ArtifactStore("s3://bucket/prefix")


def test_without_credentials_it_is_away_and_not_broken(s3_server, bucket_url, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with pytest.raises(StoreUnavailable, match="credentials"):
        ArtifactStore(bucket_url).check()


@pytest.mark.parametrize("vanishing", ["file", "folder"])
def test_a_tree_that_two_remove_at_once_is_gone_when_either_says_so(
    tmp_path, monkeypatch, vanishing
):
    store = ArtifactStore((tmp_path / "store").as_uri())
    source = tmp_path / "source"
    source.write_bytes(b"x")
    for number in range(9):
        store.put_file(source, f"runs/a/{number}/file")
    real = {"file": os.unlink, "folder": os.rmdir}[vanishing]
    taken = iter([True])

    def late(path, **named):
        if next(taken, False):  # the other one was faster
            real(path, **named)
        real(path, **named)

    monkeypatch.setattr(os, real.__name__, late)
    store.remove_tree("runs/a")
    assert list(store.entries("runs")) == []
    assert next(taken, None) is None
