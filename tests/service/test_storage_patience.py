"""How long a supervisor waits for a store that is slow, fails, or does not answer for a while."""

import threading
import time

import pytest

from service.domain.errors import Unavailable
from service.store import program_events
from tests.support.attempts import House, in_background
from tests.support.installation import wait_until
from worker.supervision import supervisor as module

PATIENCE = 0.4

THREE_FILES = """
place = directory / "checkpoints/checkpoint-2"
place.mkdir(parents=True)
files = []
for name in ("one.bin", "two.bin", "three.bin"):
    (place / name).write_bytes(name.encode() * 9)
    digest = hashlib.sha256(name.encode() * 9).hexdigest()
    files.append({"path": name, "size": 9 * len(name), "sha256": digest})
say("checkpoint", step=2, epoch=0, path="checkpoints/checkpoint-2", files=files, metrics={},
    best_step=None)
"""


@pytest.fixture
def house(context, run_id, tmp_path, monkeypatch) -> House:
    return House(context, run_id, tmp_path, monkeypatch)


@pytest.fixture
def put(monkeypatch):
    """Has these called around each upload, by the file's name; the names that came through."""
    whole = module.ArtifactStore.put_file
    done: list[str] = []

    def install(before=lambda *_: None, after=lambda _: None):
        def put_file(store, source, key, size=None, moved=None):
            before(source.name, moved)
            stored = whole(store, source, key, size, moved)
            after(source.name)
            done.append(source.name)
            return stored

        monkeypatch.setattr(module.ArtifactStore, "put_file", put_file)
        return done

    return install


def files_of(house):
    return {one.key for one in house.context.store.entries(f"runs/{house.run_id}")}


def named(house):
    with house.context.database.read() as session:
        return program_events.keys_of(session, house.run_id)


def test_a_failure_does_not_begin_all_files_anew(house, put):
    refusals = iter(range(4))

    def before(name, _):
        if name == "three.bin" and next(refusals, None) is not None:
            raise OSError(5, "I/O")

    done = put(before)
    house.play(THREE_FILES)
    assert house.job.status == "succeeded"
    assert [name for name in done if name.endswith(".bin")] == ["one.bin", "two.bin", "three.bin"]


def test_a_slow_store_may_take_longer_than_the_patience(house, put):
    """As long as bytes move: each file takes most of it, in pieces."""

    def before(name, moved):
        for done in (1, 2, 3):
            time.sleep(PATIENCE * 0.6)  # the slowness itself, nothing that is waited for
            moved(done)

    put(before)
    began = time.monotonic()
    house.play(THREE_FILES, storage_patience_seconds=PATIENCE)
    assert time.monotonic() - began > 3 * PATIENCE
    assert (house.job.status, house.job.attempts) == ("succeeded", 1)


def test_a_file_written_anew_is_sent_anew(house, put):
    """Having gone back, a program writes a checkpoint again, under the same name."""
    done, on = put(), house.tmp_path / "on"
    again = THREE_FILES.replace("(parents=True)", "(parents=True, exist_ok=True)")
    again = again.replace("* 9", "* 7").replace("9 *", "7 *")
    wait = f"while not os.path.exists({str(on)!r}): time.sleep(0.01)"
    back = 'say("rewound", step=0)'
    attempt = in_background(house.attempt(f"{THREE_FILES}\n{wait}\n{back}\n{again}"))
    wait_until(lambda: any(key.endswith("three.bin") for key in named(house)))
    on.touch()
    attempt.join(20)
    assert house.job.status == "succeeded"
    assert [name for name in done if name.endswith(".bin")] == 2 * [
        "one.bin",
        "two.bin",
        "three.bin",
    ]


def test_a_full_store_is_named_though_the_patience_ends_amid_a_try(house, put):
    def before(name, _):
        if name.endswith(".bin"):
            time.sleep(PATIENCE * 0.6)  # the slowness itself, nothing that is waited for
            raise OSError(28, "No space left on device")

    put(before)
    for _ in range(3):
        house.play(THREE_FILES, storage_patience_seconds=PATIENCE)
    assert (house.job.status, house.job.failure_reason) == ("failed", "no_space")


def test_a_database_is_waited_for_longer_than_a_store(house, monkeypatch):
    """Nobody else could take the job over either."""
    whole, since, slow = program_events.ship, time.monotonic(), iter(range(6))

    def ship(*arguments):
        if time.monotonic() - since < 3 * PATIENCE and next(slow, None) is not None:
            time.sleep(PATIENCE * 0.6)
            raise Unavailable("the database")
        return whole(*arguments)

    monkeypatch.setattr(program_events, "ship", ship)
    house.play(THREE_FILES, storage_patience_seconds=PATIENCE)
    assert (house.job.status, house.job.attempts) == ("succeeded", 1)


def test_the_same_bytes_again_and_again_are_no_progress(house, put):
    def before(name, moved):
        if name.endswith(".bin"):
            moved(1)
            raise OSError(28, "No space left on device")

    put(before)
    for _ in range(3):
        house.play(THREE_FILES, storage_patience_seconds=PATIENCE)
    assert (house.job.status, house.job.failure_reason) == ("failed", "no_space")


def test_an_upload_that_comes_back_after_the_end_leaves_nothing(house, put):
    """The attempt is over, its job another's: what it stores now no row will ever name."""
    hangs, on = threading.Event(), threading.Event()

    def after(name):
        if name == "two.bin":
            hangs.set()
            on.wait()

    done = put(after=after)
    attempt = in_background(house.attempt(THREE_FILES, storage_patience_seconds=PATIENCE))
    assert hangs.wait(20)
    attempt.join(20)
    assert house.job.status == "queued"
    assert any(key.endswith("/two.bin") for key in files_of(house) - named(house))
    on.set()
    wait_until(lambda: "two.bin" in done and files_of(house) == named(house), 20)


@pytest.mark.parametrize("when", ["during", "after"])
def test_looking_for_what_earlier_attempts_left_may_take_its_time(house, monkeypatch, when):
    """It is left behind, and what this attempt stores meanwhile is none of its business."""
    whole, on, ended = module.ArtifactStore.remove, threading.Event(), threading.Event()
    first = iter([True])

    def remove(store, entries):
        if next(first, False):
            on.wait()
            whole(store, entries)
            ended.set()
        else:
            whole(store, entries)

    monkeypatch.setattr("service.store.orphaned_files._WAIT_SECONDS", 0.2)
    house.play("sys.exit(1)")  # an earlier attempt, so that there is something to look for
    monkeypatch.setattr(module.ArtifactStore, "remove", remove)
    end = house.tmp_path / "end"
    program = f"{THREE_FILES}\nwhile not os.path.exists({str(end)!r}): time.sleep(0.01)\n"
    attempt = in_background(house.attempt(program))
    wait_until(lambda: any(key.endswith("three.bin") for key in named(house)))
    if when == "during":
        on.set()
        assert ended.wait(20)
    end.touch()
    attempt.join(20)
    on.set()
    assert ended.wait(20)
    assert house.job.status == "succeeded"
    wait_until(lambda: files_of(house) == named(house))
