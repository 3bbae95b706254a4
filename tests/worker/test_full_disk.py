"""No room in the job directory: nothing is torn, nothing is lost, and training goes on."""

import errno
import itertools
import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.train_jobs import (
    board_scalars,
    events,
    make_trainer,
    of_type,
    spec,
    stop_at,
    token_examples,
)
from worker.data.rows import Row
from worker.runtime import disk_full
from worker.runtime.disk_errors import is_full
from worker.runtime.events import Reporter, Stopped, StopSignal
from worker.scoring.predictions import write_predictions
from worker.training import checkpoint_writer, checkpoints
from worker.training.tensorboard import TensorBoardWriter

pytestmark = pytest.mark.extended


def lines(path):
    """The file's lines, each of which must be whole."""
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_lines_wait_for_room_and_then_stand_in_their_order(small_disk):
    path = small_disk.path / "events.jsonl"
    reporter = Reporter(path)
    reporter.log("before")
    small_disk.fill()
    for number in range(40):
        reporter.log(f"{number} " + "x" * 37 * number)
    records = lines(path)  # the file's last page had room for some
    assert 1 < len(records) < 41
    assert [line["seq"] for line in records] == list(range(1, len(records) + 1))
    with pytest.raises(OSError, match="No space left") as failure:
        reporter.flush()
    assert is_full(failure.value)
    small_disk.free()
    reporter.log("after")
    records = lines(path)
    assert [line["seq"] for line in records] == list(range(1, 43))
    assert [line["message"].split()[0] for line in records] == [
        "before",
        *map(str, range(40)),
        "after",
    ]


@pytest.mark.parametrize("share", [1, 2])
def test_a_signals_exception_in_the_middle_of_a_write_doubles_no_line(tmp_path, monkeypatch, share):
    path = tmp_path / "events.jsonl"
    reporter = Reporter(path)
    reporter.log("one")
    write, writes = os.write, []

    def interrupted(file, data):
        writes.append(write(file, data[: len(data) // share]))
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", interrupted)
        with pytest.raises(Stopped):
            reporter.log("two")
    monkeypatch.setattr(os, "write", lambda *args: writes.append(args) or write(*args))
    reporter.flush()
    assert [line["message"] for line in lines(path)] == ["one", "two"]
    assert len(writes) == share  # a line that is there is not written again


def test_a_torn_last_line_is_cut_off(tmp_path):
    path = tmp_path / "events.jsonl"
    Reporter(path).log("one")
    path.write_bytes(path.read_bytes() + b'{"seq":2,"ti')
    reporter = Reporter(path)
    assert reporter.is_continued
    reporter.log("two")
    assert [(line["seq"], line["message"]) for line in lines(path)] == [(1, "one"), (2, "two")]


def test_what_the_libraries_raise_is_recognised(small_disk):
    small_disk.fill()
    with pytest.raises(Exception, match="No space left") as failure:
        save_file({"a": torch.zeros(9000)}, small_disk.path / "a.safetensors")
    assert not isinstance(failure.value, OSError)
    assert is_full(failure.value)
    row = Row("1", "text", None, "hate", None, None, None, "test")
    with pytest.raises(OSError, match="No space left") as failure:
        write_predictions(
            small_disk.path / "base-test.parquet",
            [row] * 3000,
            ["hate", "normal"],
            torch.rand(3000, 2).tolist(),
            "hate",
            None,
        )
    assert is_full(failure.value)
    assert [path.name for path in small_disk.path.iterdir()] == ["filler"]
    assert is_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert not is_full(OSError(errno.EIO, "Input/output error"))
    assert not is_full(ValueError("no space"))


def test_the_board_has_what_was_logged_while_there_was_no_room(small_disk):
    directory = small_disk.path / "tensorboard"
    board = TensorBoardWriter(directory)
    board.write({"loss": 0.5, "eval_loss": 0.25}, 1)
    small_disk.fill()
    for step in range(2, 200):
        board.write({"loss": step / 2}, step)
    assert len(board_scalars(directory)) < 199
    small_disk.free()
    board.flush()
    assert board_scalars(directory) == [(step, step / 2) for step in range(1, 200)]
    assert board_scalars(directory, "eval/loss") == [(1, 0.25)]


def test_a_board_can_begin_on_a_full_disk(small_disk, monkeypatch):
    mkdir = Path.mkdir

    def full(path, *args, **kwargs):
        if path.name == "tensorboard" and (small_disk.path / "filler").exists():
            raise OSError(errno.ENOSPC, "No space left on device")  # as ext4 says; tmpfs does not
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", full)
    small_disk.fill()
    board = TensorBoardWriter(small_disk.path / "tensorboard")
    board.write({"loss": 0.5}, 1)
    small_disk.free()
    board.flush()
    assert board_scalars(small_disk.path / "tensorboard") == [(1, 0.5)]


def on_disk(load, disk, monkeypatch, full_from, full_to, **training):
    """A trainer of 9 steps, 3 an epoch, whose disk is full while it makes some of them."""
    run_spec = spec(training={"num_train_epochs": 3, **training})
    run = make_trainer(load, disk.path, run_spec, token_examples(10), token_examples(3))
    make_step = run._step

    def step():
        number = run.state.step + 1
        if number == full_from:
            disk.fill()
        elif number == full_to:
            disk.free()
        return make_step()

    run._step = step
    return run


def tries(directory):
    return [event.step for event in of_type(events(directory), "progress") if event.saving]


def assert_whole(disk, undisturbed):
    """Nothing aside, all checkpoints as they should be, and the weights the undisturbed run's."""
    directory = disk.path / "checkpoints"
    assert not [path for path in directory.iterdir() if path.name.startswith(".")]
    announced = [event.step for event in of_type(events(disk.path), "checkpoint")]
    assert sorted(announced) == sorted(checkpoints.steps_in(directory))
    for path in directory.iterdir():
        checkpoints.verify(path)
    last = checkpoints.read(directory / "checkpoint-9").adapter
    assert all(torch.equal(last[name], tensor) for name, tensor in undisturbed.items())


@pytest.fixture
def undisturbed(load, tmp_path):
    run_spec = spec(training={"num_train_epochs": 3, "load_best_model_at_end": False})
    run = make_trainer(load, tmp_path / "whole", run_spec, token_examples(10), token_examples(3))
    run.run()
    return checkpoints.adapter_tensors(run.model)


@pytest.mark.parametrize(
    ("pause", "tried", "saved"),
    # Not within the pause of the last try, but whenever a save is due; at every step without one.
    [(3600.0, [3, 6, 9], [6, 9]), (0.0, [3, 4, 5, 6, 9], [5, 6, 9])],
)
def test_training_goes_on_and_a_save_is_tried_again(
    load, small_disk, monkeypatch, undisturbed, pause, tried, saved
):
    monkeypatch.setattr(checkpoint_writer, "FIRST_RETRY_SECONDS", pause)
    run = on_disk(load, small_disk, monkeypatch, 2, 5)
    run.run()
    emitted = events(small_disk.path)
    assert tries(small_disk.path) == tried
    assert [event.step for event in of_type(emitted, "checkpoint")] == saved
    assert [event.code for event in of_type(emitted, "warning")] == ["no_space"]
    assert "checkpoint-3" in of_type(emitted, "warning")[0].detail
    steps = [event.step for event in of_type(emitted, "metrics") if "loss" in event.values]
    assert steps == [2, 4, 6, 8, 9]
    # A try that failed is over: the next line takes its limit back.
    for before, after in itertools.pairwise(emitted):
        if before.type == "progress" and before.saving:
            over = after.type == "progress" and (after.step, after.saving) == (before.step, False)
            assert over or after.type in ("checkpoint", "warning")
    assert_whole(small_disk, undisturbed)


def test_a_second_outage_has_a_warning_of_its_own(load, small_disk, monkeypatch):
    monkeypatch.setattr(checkpoint_writer, "FIRST_RETRY_SECONDS", 0.0)
    run = on_disk(load, small_disk, monkeypatch, 2, 4)
    make_step = run._step

    def step():
        if run.state.step == 4:
            small_disk.fill()
        if run.state.step == 7:
            small_disk.free()
        return make_step()

    run._step = step
    run.run()
    emitted = events(small_disk.path)
    assert [event.step for event in of_type(emitted, "checkpoint")] == [4, 8, 9]
    assert [event.code for event in of_type(emitted, "warning")] == ["no_space"] * 2


def test_told_to_stop_it_tries_once_and_stops(load, small_disk, monkeypatch):
    run = on_disk(load, small_disk, monkeypatch, 2, None)
    stop_at(run, 4)
    with pytest.raises(Stopped):
        run.run()
    small_disk.free()
    run.reporter.flush()
    assert tries(small_disk.path) == [3, 4]
    assert list((small_disk.path / "checkpoints").iterdir()) == []


def test_the_last_checkpoint_is_waited_for(load, small_disk, monkeypatch, undisturbed):
    monkeypatch.setattr(disk_full.DiskSpace, "_pause", lambda _self, _seconds: small_disk.free())
    run = on_disk(load, small_disk, monkeypatch, 8, None)
    run.run()
    assert tries(small_disk.path) == [3, 6, 9, 9, 9]  # due, at the end, after the pause
    last = of_type(events(small_disk.path), "checkpoint")[-1]
    assert last.step == 9
    assert set(last.metrics) == {"eval_loss", "eval_runtime", "eval_samples_per_second"}
    assert_whole(small_disk, undisturbed)


def test_waiting_for_the_last_checkpoint_ends_with_term(load, small_disk, monkeypatch):
    run = on_disk(load, small_disk, monkeypatch, 8, None)
    pauses = []

    def record_pause(_self, seconds):
        pauses.append(seconds)
        run.stop.requested = True

    monkeypatch.setattr(disk_full.DiskSpace, "_pause", record_pause)
    with pytest.raises(Stopped):
        run.run()
    assert len(pauses) == 1


def test_a_checkpoint_that_cannot_take_its_place_leaves_the_one_there(load, tmp_path, monkeypatch):
    run_spec = spec(training={"num_train_epochs": 1, "eval_strategy": "no"})
    run = make_trainer(load, tmp_path, run_spec)
    run.run()
    saved = tmp_path / "checkpoints" / "checkpoint-2"
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    rename = Path.rename

    def full(path, target):
        if path.name.endswith(".tmp"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        run._save()
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint-2"]


def test_what_a_killed_program_left_is_tidied_and_nothing_whole_is_lost(tmp_path):
    for name in (".checkpoint-4.tmp", ".checkpoint-2.old", ".checkpoint-3.old", "checkpoint-3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    checkpoints.remove_leftovers(tmp_path)
    assert {path.name: (path / "file").read_text() for path in tmp_path.iterdir()} == {
        "checkpoint-2": ".checkpoint-2.old",  # killed between two renames
        "checkpoint-3": "checkpoint-3",
    }


def test_a_pause_ends_when_told_to_stop(tmp_path):
    stop = StopSignal()
    stop.requested = True
    began = time.monotonic()
    disk_full.DiskSpace(Reporter(tmp_path / "events.jsonl"), stop)._pause(60)
    assert time.monotonic() - began < 10
