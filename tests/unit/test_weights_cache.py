"""Weights fetched once for many jobs, on a directory store and as of a bucket."""

import errno
import hashlib
import os

import pytest

from service.artifacts import ArtifactStore, DamagedFile, StoredFile
from worker.supervision.weights_cache import WeightsCache

KEY = "runs/run_1/job_1/1/merged/model.safetensors"


@pytest.fixture
def store(tmp_path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "store").as_uri())


@pytest.fixture
def elsewhere(store, monkeypatch):
    """The store, as a bucket answers: its files have no path here. Counts what is fetched."""
    fetched, whole = [], store.fetch

    def fetch(key, *rest):
        fetched.append(key)
        whole(key, *rest)

    monkeypatch.setattr(store, "path_of", lambda _: None)
    monkeypatch.setattr(store, "fetch", fetch)
    return fetched


@pytest.fixture
def cache(tmp_path) -> WeightsCache:
    return WeightsCache(tmp_path / "jobs" / ".weights", 100)


def put(store, tmp_path, content=b"weights", key=KEY) -> StoredFile:
    source = tmp_path / "source"
    source.write_bytes(content)
    return store.put_file(source, key)


def kept(cache) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.root.iterdir()}


def test_a_directorys_file_is_linked(store, cache, tmp_path):
    stored = put(store, tmp_path)
    target = tmp_path / "jobs" / "job_1" / "merged" / "model.safetensors"
    cache.provide(store, KEY, target, stored)
    assert target.samefile(store.root / KEY)
    assert not cache.root.exists()
    store.remove_tree("runs")
    assert target.read_bytes() == b"weights"


def test_where_there_are_no_links_it_is_copied(store, cache, tmp_path, monkeypatch):
    def link(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    stored = put(store, tmp_path)
    cache.provide(store, KEY, tmp_path / "target", stored)
    assert (tmp_path / "target").read_bytes() == b"weights"
    assert not (tmp_path / "target").samefile(store.root / KEY)


def test_a_copy_is_of_use_where_there_are_no_links(store, elsewhere, cache, tmp_path, monkeypatch):
    def link(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    stored = put(store, tmp_path)
    for name in ("one", "two"):
        cache.provide(store, KEY, tmp_path / name, stored)
        assert (tmp_path / name).read_bytes() == b"weights"
    assert elsewhere == [KEY]


@pytest.mark.parametrize("bucket", [False, True])
def test_what_is_not_as_it_was_stored_is_refused(store, cache, tmp_path, bucket, monkeypatch):
    if bucket:
        monkeypatch.setattr(store, "path_of", lambda _: None)
    stored = put(store, tmp_path)
    (store.root / KEY).write_bytes(b"weightX")
    with pytest.raises(DamagedFile, match="SHA-256"):
        cache.provide(store, KEY, tmp_path / "target", stored)
    (store.root / KEY).unlink()
    with pytest.raises(DamagedFile, match="not in the store"):
        cache.provide(store, KEY, tmp_path / "target", stored)
    assert not list(tmp_path.rglob("*.part"))


def test_a_buckets_file_is_fetched_once(store, elsewhere, cache, tmp_path):
    stored = put(store, tmp_path)
    for name in ("one", "two"):
        cache.provide(store, KEY, tmp_path / name, stored)
        assert (tmp_path / name).read_bytes() == b"weights"
    assert elsewhere == [KEY]
    assert kept(cache) == {stored.sha256: b"weights"}


def test_a_broken_copy_is_fetched_anew(store, elsewhere, cache, tmp_path):
    stored = put(store, tmp_path)
    cache.provide(store, KEY, tmp_path / "one", stored)
    (cache.root / stored.sha256).write_bytes(b"tampered")
    cache.provide(store, KEY, tmp_path / "two", stored)
    assert (tmp_path / "two").read_bytes() == b"weights"
    assert len(elsewhere) == 2
    assert kept(cache) == {stored.sha256: b"weights"}


def test_the_longest_unused_go_and_jobs_keep_theirs(store, elsewhere, cache, tmp_path):
    stored = [put(store, tmp_path, bytes([65 + n]) * 40, f"runs/a/{n}") for n in range(3)]
    for n in (0, 1):
        cache.provide(store, f"runs/a/{n}", tmp_path / str(n), stored[n])
        os.utime(cache.root / stored[n].sha256, (n, n))
    cache.provide(store, "runs/a/0", tmp_path / "again", stored[0])  # used: 1 is the longest unused
    cache.provide(store, "runs/a/2", tmp_path / "2", stored[2])
    assert set(kept(cache)) == {stored[0].sha256, stored[2].sha256}
    assert (tmp_path / "1").read_bytes() == b"B" * 40


def test_what_is_larger_than_all_of_it_is_fetched_past_it(store, elsewhere, cache, tmp_path):
    stored = put(store, tmp_path, b"x" * 101)
    cache.provide(store, KEY, tmp_path / "one", stored)
    assert (tmp_path / "one").stat().st_size == 101
    assert not cache.root.exists()


def test_a_full_disk_empties_it(store, elsewhere, cache, tmp_path, monkeypatch):
    stored = put(store, tmp_path)
    cache.provide(store, KEY, tmp_path / "one", stored)

    def full(key, target, *_):
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "fetch", full)
    with pytest.raises(OSError, match="No space left"):
        cache.provide(store, "runs/b", tmp_path / "two", StoredFile(9, "0" * 64))
    assert kept(cache) == {}


def test_halves_of_the_dead_go_and_those_of_the_living_stay(store, elsewhere, cache, tmp_path):
    cache.root.mkdir(parents=True)
    for name, at in (("old.part", 1), ("new.part", None)):
        (cache.root / name).write_bytes(b"half")
        if at:
            os.utime(cache.root / name, (at, at))
    stored = put(store, tmp_path, hashlib.sha256().digest())
    cache.provide(store, KEY, tmp_path / "one", stored)
    assert set(kept(cache)) == {"new.part", stored.sha256}


def test_what_is_not_used_for_days_goes_and_what_is_beyond_the_limit(
    store, elsewhere, cache, tmp_path
):
    cache.trim()  # nothing is there yet
    stored = [put(store, tmp_path, bytes([65 + n]) * 40, f"runs/a/{n}") for n in range(2)]
    for n in (0, 1):
        cache.provide(store, f"runs/a/{n}", tmp_path / str(n), stored[n])
    os.utime(cache.root / stored[0].sha256, (1, 1))
    cache.trim()
    assert set(kept(cache)) == {stored[1].sha256}
    cache._replace(limit=0).trim()
    assert kept(cache) == {}


def test_what_is_linked_is_to_be_read_only(store, cache, tmp_path):
    stored = put(store, tmp_path)
    cache.provide(store, KEY, tmp_path / "target", stored)
    assert (tmp_path / "target").stat().st_mode & 0o222 == 0


def test_a_file_that_cannot_be_read_is_damaged(store, cache, tmp_path, monkeypatch):
    stored = put(store, tmp_path)

    def unreadable(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("worker.supervision.weights_cache.sha256_of", unreadable)
    monkeypatch.setattr(store, "fetch", lambda *_: (_ for _ in ()).throw(DamagedFile("no")))
    with pytest.raises(DamagedFile):
        cache.provide(store, KEY, tmp_path / "target", stored)
