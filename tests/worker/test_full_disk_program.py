"""The whole train program on a disk that is full for a while, or for good."""

import errno
import importlib
import os
from pathlib import Path

import pytest

from service.domain.events import EXIT_DONE, EXIT_FAILED, EXIT_NO_SPACE, EXIT_STOPPED, LogEvent
from tests.support.train_jobs import (
    board_scalars,
    events,
    make_job,
    of_type,
    read_json,
    rows,
    run_here,
    spec,
)
from worker.runtime import disk_full, launch
from worker.runtime.events import Stopped, StopSignal
from worker.training import checkpoints
from worker.training.loop import Trainer

pytestmark = pytest.mark.extended


@pytest.fixture
def job(models_dir, small_disk):
    run_spec = spec(training={"logging_steps": 1})
    return make_job(small_disk.path / "job", models_dir, run_spec, rows(12, 4, 4))


def fills_at_step(disk, monkeypatch, number):
    make_step = Trainer._step

    def step(self):
        if self.state.step == number - 1:
            disk.fill()
        return make_step(self)

    monkeypatch.setattr(Trainer, "_step", step)


def no_line_fits(disk, monkeypatch):
    """As if the last page of each file were full too."""
    write = os.write

    def full(file, data):
        if (disk.path / "filler").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", full)


def frees_after(disk, monkeypatch, count):
    """Make room in the so manieth pause; returns the seconds of each."""
    pauses = []

    def pause(_self, seconds):
        pauses.append(seconds)
        if len(pauses) == count:
            disk.free()

    monkeypatch.setattr(disk_full.DiskSpace, "_pause", pause)
    return pauses


def test_the_result_waits_for_room(job, small_disk, monkeypatch):
    fills_at_step(small_disk, monkeypatch, 3)
    no_line_fits(small_disk, monkeypatch)
    pauses = frees_after(small_disk, monkeypatch, 3)
    status, emitted = run_here(job)
    assert status == EXIT_DONE
    assert pauses == [0.5, 1.0, 2.0]
    assert [event.step for event in of_type(emitted, "checkpoint")] == [6]
    assert [event.code for event in of_type(emitted, "warning")].count("no_space") == 1
    assert [step for step, _ in board_scalars(job / "tensorboard")] == [1, 2, 3, 4, 5, 6]
    assert emitted[-1].phase == "done"


@pytest.mark.parametrize(
    "name",
    [
        "worker.scoring.evaluate.write_predictions",
        "worker.training.checkpoints.save_adapter",
        "worker.training.results.write_json",
        "worker.programs.write_results.file_entry",
    ],
)
def test_each_file_of_the_result_waits_for_room(job, small_disk, monkeypatch, name):
    """Also the last lines, which come when all files are there."""
    module_name, _, function = name.rpartition(".")
    module = importlib.import_module(module_name)
    original, calls = getattr(module, function), []

    def on_a_full_disk(*args):
        paths = [path for path in args if isinstance(path, Path)]
        if not any("checkpoints" in path.parts for path in paths):  # those are not the result's
            calls.append(paths)
            if len(calls) == 1:
                small_disk.fill()
        return original(*args)

    monkeypatch.setattr(module, function, on_a_full_disk)
    no_line_fits(small_disk, monkeypatch)
    pauses = frees_after(small_disk, monkeypatch, 1)
    status, emitted = run_here(job)
    assert status == EXIT_DONE
    assert pauses == [0.5]
    assert emitted[-1].phase == "done"
    for event in of_type(emitted, "artifact"):
        assert (job / event.file.path).stat().st_size == event.file.size
    assert read_json(job / "all_results.json")["test_f1"] >= 0
    assert not [path for path in job.rglob("*") if path.suffix == ".tmp"]


def test_stopped_it_writes_the_lines_that_have_room_by_then(job, small_disk, monkeypatch):
    no_line_fits(small_disk, monkeypatch)

    def main(program):
        small_disk.fill()
        program.reporter.log("the last words")
        small_disk.free()
        raise Stopped

    assert launch._run(main, job, StopSignal()) == (EXIT_STOPPED, "stopped")
    assert events(job)[-1].message == "the last words"


def test_without_room_for_long_enough_it_fails(job, small_disk, monkeypatch):
    fills_at_step(small_disk, monkeypatch, 6)
    monkeypatch.setattr(disk_full, "MAX_WAIT_SECONDS", 0.0)
    # Room for lines, but for no checkpoint.
    write = checkpoints._fill

    def fill_up(*args):
        write(*args)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "_fill", fill_up)
    monkeypatch.setattr(type(small_disk), "fill", lambda _self: None)
    status, emitted = run_here(job)
    assert status == EXIT_FAILED
    assert (emitted[-1].type, emitted[-1].reason) == ("failure", "no_space")
    assert "checkpoint-6" in emitted[-1].detail


def test_without_room_even_to_say_so_the_exit_status_says_it(job, small_disk, monkeypatch):
    fills_at_step(small_disk, monkeypatch, 2)
    monkeypatch.setattr(disk_full, "MAX_WAIT_SECONDS", 0.0)
    status, emitted = run_here(job)
    assert status == EXIT_NO_SPACE
    assert not of_type(emitted, "failure")


def test_a_failure_of_another_kind_waits_until_it_can_be_told(job, small_disk, monkeypatch):
    monkeypatch.setattr(disk_full.DiskSpace, "_pause", lambda _self, _seconds: small_disk.free())

    def fails(self):
        small_disk.fill()
        for _ in range(40):
            self.reporter.emit(LogEvent, message="x" * 200)
        raise RuntimeError("something else")

    monkeypatch.setattr(Trainer, "_step", fails)
    status, emitted = run_here(job)
    assert status == EXIT_FAILED
    assert (emitted[-1].type, emitted[-1].reason) == ("failure", "internal")
