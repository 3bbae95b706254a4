"""The event files that `fairtune train` writes, read by TensorBoard itself."""

from contextlib import closing

import pytest

from service.cli.original.tensorboard import EventFile
from tests.support.tensorboard_files import scalars


def test_tensorboard_reads_the_metrics_while_they_are_written(tmp_path):
    with closing(EventFile(tmp_path, 1e9)) as board:
        for step in range(1, 400):
            board.write({"loss": 1 / step, "eval_loss": -step}, step, 1e9 + step)
        read = scalars(tmp_path)
        board.write({"loss": 7}, 400, 1e9)
        assert scalars(tmp_path)["train/loss"][-1] == (400, 7)
    assert [step for step, _ in read["train/loss"]] == list(range(1, 400))
    assert read["train/loss"][1] == (2, 0.5)
    assert read["eval/loss"][-1] == (399, -399)


def test_metrics_after_a_rewind_replace_those_before(tmp_path):
    with closing(EventFile(tmp_path, 1e9)) as board:
        for step in (1, 2, 3, 4):
            board.write({"loss": step}, step, 1e9)
        board.rewind(2, 1e9)
        board.write({"loss": 30}, 3, 1e9)
    assert scalars(tmp_path)["train/loss"] == [(1, 1), (2, 2), (3, 30)]


def test_a_later_call_replaces_its_own_files_only(tmp_path):
    other = tmp_path / "events.out.tfevents.1.host.1.0"
    other.touch()
    EventFile(tmp_path, 1e9).close()
    with closing(EventFile(tmp_path, 1.5e9)) as board:
        board.write({"loss": 1}, 1, 1e9)
    assert other.exists()
    assert len(list(tmp_path.iterdir())) == 2
    assert scalars(tmp_path) == {"train/loss": [(1, pytest.approx(1))]}
