"""Parts of the supervisor: signs of life, job directories, the store's leftovers, memory."""

import json
import subprocess
import sys
from unittest import mock

import pytest

from service.artifacts import ArtifactStore, DamagedFile, StoredFile
from service.settings import Settings
from worker.supervision import job_directory
from worker.supervision.kernel_oom import oom_kills
from worker.supervision.stall_detector import StallDetector, StallLimits


class Clock:
    """The monotonic clock, set by hand."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("worker.supervision.stall_detector.time.monotonic", lambda: self.now)


@pytest.fixture
def stall_detector(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    events = tmp_path / "events.jsonl"
    detector = StallDetector(events, StallLimits(startup=100, step=10, checkpoint=50), 0.5)

    def say(**line):
        with events.open("a") as file:
            file.write(json.dumps({"seq": 1, **line}) + "\n")

    def after(seconds):
        """Look twice a second, as a supervisor does."""
        for _ in range(int(seconds * 2)):
            clock.now += 0.5
            if stall := detector.check():
                return stall
        return None

    return say, after, clock, detector


def test_start_up_step_and_checkpoint_have_limits_of_their_own(stall_detector):
    say, after, _, _ = stall_detector
    assert after(99) is None
    say(type="phase", phase="loading")
    assert after(99) is None
    say(type="phase", phase="training")
    assert after(9) is None
    say(type="progress", step=1)
    assert after(9) is None
    say(type="progress", step=1, saving=True)
    assert after(49) is None
    say(type="checkpoint", step=1)
    assert after(9) is None
    stall = after(2)
    assert "reported no progress for 10 s while training" in stall
    assert "FAIRTUNE_STEP_LIMIT_SECONDS" in stall


@pytest.mark.parametrize(
    ("lines", "limit", "name"),
    [
        ([], 100, "STARTUP"),
        ([{"type": "phase", "phase": "training"}], 10, "STEP"),
        ([{"type": "progress", "saving": True}], 100, "STARTUP"),
        (
            [{"type": "phase", "phase": "training"}, {"type": "progress", "saving": True}],
            50,
            "CHECKPOINT",
        ),
        ([{"type": "phase", "phase": "saving"}], 50, "CHECKPOINT"),
    ],
)
def test_each_limit_is_named_by_its_setting(stall_detector, lines, limit, name):
    say, after, _, _ = stall_detector
    for line in lines:
        say(**line)
    assert after(limit) is None
    stall = after(2)
    assert f"FAIRTUNE_{name}_LIMIT_SECONDS" in stall
    assert name.lower() + "_limit_seconds" in Settings.model_fields


def test_time_in_which_nobody_looked_is_not_the_programs_silence(stall_detector):
    """A laptop that slept, or a supervisor that was stopped."""
    say, after, clock, detector = stall_detector
    say(type="phase", phase="training")
    assert after(5) is None
    clock.now += 3600
    assert detector.check() is None
    assert after(5) is not None


def test_half_a_line_is_no_sign_of_life_yet_and_not_lost(stall_detector, tmp_path):
    say, after, _, detector = stall_detector
    say(type="phase", phase="training")
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"seq": 2, "type": "ph')
        file.flush()
        assert after(9) is None
        file.write('ase", "phase": "evaluating"}\n')
    assert detector.check() is None
    assert detector.phase == "evaluating"


OWNER = """
import sys, pathlib
from worker.supervision import job_directory
directory = pathlib.Path(sys.argv[1])
with job_directory.owned(directory):
    directory.mkdir()
    (directory / "file").write_text("x")
    print("ready", flush=True)
    sys.stdin.read()
"""


def owner_of(directory) -> subprocess.Popen[bytes]:
    """A process that works in the directory until its input closes."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_a_job_directory_is_swept_when_its_owner_was_killed_and_not_before(tmp_path):
    jobs_dir = tmp_path / "jobs"
    assert job_directory.remove_abandoned(jobs_dir) == 0
    with owner_of(jobs_dir / "job_1-1") as owner:
        assert job_directory.remove_abandoned(jobs_dir) == 0
        assert (jobs_dir / "job_1-1" / "file").exists()
        owner.kill()
    (jobs_dir / "job_0-1").mkdir()  # of a version without locks
    for stranger in ("thesis", "job_x", ".lock", "job_1-1.txt"):  # a person's own
        (jobs_dir / stranger).mkdir()
    assert job_directory.remove_abandoned(jobs_dir) == 2
    left = {path.name for path in jobs_dir.iterdir()}
    assert left == {"thesis", "job_x", ".lock", "job_1-1.txt"}


def test_a_job_directory_is_gone_when_its_owner_is_done(tmp_path):
    with owner_of(tmp_path / "job_1-1") as owner:
        owner.communicate()
    assert owner.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_directory_held_in_this_process_is_not_swept(tmp_path):
    with job_directory.owned(tmp_path / "job_1-1"):
        assert job_directory.remove_abandoned(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("announced", "there", "resume_from", "newest"),
    [
        ([], [], None, None),
        ([4], [4], None, 4),
        ([2, 9, 10], [2, 9, 10], None, 10),
        ([2, 9], [2, 9, 10], None, 9),  # completed, but killed before it could say so
        ([2, 9], [2], None, 2),  # removed since
        ([], [7], 7, 7),  # the one that it resumed from
        ([8], [7, 8], 7, 8),
    ],
)
def test_the_newest_local_checkpoint_is_one_that_was_announced(
    tmp_path, announced, there, resume_from, newest
):
    def place(step):
        return None if step is None else f"checkpoints/checkpoint-{step}"

    for step in there:
        (tmp_path / place(step)).mkdir(parents=True)
        (tmp_path / "checkpoints" / f".checkpoint-{step + 100}.tmp").mkdir()
    lines = [{"type": "checkpoint", "path": place(step)} for step in announced]
    lines.append({"type": "progress", "step": 99})
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"type": "check'
    (tmp_path / "events.jsonl").write_text(text)
    assert job_directory.newest_checkpoint(tmp_path, place(resume_from)) == place(newest)


def test_on_a_full_disk_silence_means_nothing(stall_detector, monkeypatch):
    say, after, _, _ = stall_detector
    say(type="phase", phase="training")
    full = mock.Mock(free=100)
    monkeypatch.setattr("worker.supervision.stall_detector.shutil.disk_usage", lambda _: full)
    assert after(60) is None
    full.free = 1 << 30
    assert after(60) is not None


@pytest.fixture
def store(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"0123456789")
    store = ArtifactStore((tmp_path / "store").as_uri())
    return store, source, store.put_file(source, "runs/a/file")


def test_what_is_put_says_its_size_and_hash(store):
    files, source, stored = store
    digest = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
    assert stored == StoredFile(10, digest)
    assert files.put_file(source, "part", 4).size == 4
    assert (files.root / "part").read_bytes() == b"0123"
    assert files.put_file(source, "more", 99) == stored  # there is no more


@pytest.mark.parametrize("content", [b"012345678", b"0123456780", b"", None])
def test_a_file_that_is_not_what_was_put_is_noticed(store, tmp_path, content):
    files, _, stored = store
    files.fetch("runs/a/file", tmp_path / "deep" / "copy", stored)
    assert (tmp_path / "deep" / "copy").read_bytes() == b"0123456789"
    if content is None:
        (files.root / "runs/a/file").unlink()
    else:
        (files.root / "runs/a/file").write_bytes(content)
    with pytest.raises(DamagedFile, match="runs/a/file"):
        files.fetch("runs/a/file", tmp_path / "other", stored)


def test_a_directory_that_was_unmounted_is_away_and_not_empty(store, tmp_path):
    files, source, stored = store
    files.root.rename(tmp_path / "elsewhere")
    files.root.mkdir()
    for action in (
        lambda: files.put_file(source, "runs/a/other"),
        lambda: files.fetch("runs/a/file", tmp_path / "copy", stored),
    ):
        with pytest.raises(OSError, match="mounted"):
            action()
    assert list(files.root.iterdir()) == []


def test_a_file_that_cannot_be_read_is_damaged(store, tmp_path, monkeypatch):
    files, _, stored = store

    def broken(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "open", broken)
    with pytest.raises(DamagedFile, match="cannot be read"):
        files.fetch("runs/a/file", tmp_path / "copy", stored)


def test_tidying_leaves_what_is_named_and_what_lies_elsewhere(store):
    files, source, _ = store
    for key in ("runs/a/deep/kept", "runs/a/deep/gone", "runs/a/.x.part", "runs/ab/file"):
        files.put_file(source, key)
    assert files.remove_except("runs/a", {"runs/a/deep/kept", "runs/ab/file"}) == 3
    left = [path.relative_to(files.root).as_posix() for path in files.root.rglob("*")]
    assert {path for path in left if "." not in path} == {
        "runs",
        "runs/a",
        "runs/a/deep",
        "runs/a/deep/kept",
        "runs/ab",
        "runs/ab/file",
    }
    assert files.remove_except("runs/a", set()) == 1
    assert not (files.root / "runs/a").exists()
    assert files.remove_except("runs/none", set()) == 0


@pytest.mark.parametrize(
    ("membership", "file", "expected"),
    [
        ("0::/box\n", "box/memory.events", 3),
        ("4:memory:/box\n0::/\n", "memory/box/memory.oom_control", 3),
        ("0::/box\n", "memory.events", 3),  # a container sees itself at the root
        ("0::/box\n", "elsewhere", 0),
        ("nonsense\n", "memory.events", 3),
    ],
)
def test_the_kernels_count_of_kills_is_read_from_either_version(
    tmp_path, membership, file, expected
):
    counts = tmp_path / "cgroup" / file
    counts.parent.mkdir(parents=True)
    counts.write_text("oom 4\noom_kill 3\n")
    (tmp_path / "self").write_text(membership)
    assert oom_kills(tmp_path / "cgroup", tmp_path / "self") == expected
