"""Temporary folders with users' rows do not outlive their process for long."""

import os
import subprocess
import sys
import tempfile

import pytest

from service.artifacts import temporary
from service.artifacts.temporary import COPIES, UPLOADS, remove_abandoned, temporary_folder

HOLD = """
import sys, time
from service.artifacts.temporary import TemporaryFolder, UPLOADS
folder = TemporaryFolder(UPLOADS)
(folder.path / "rows").write_text("text")
print(folder.path, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temp(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporary, "_YOUNG_SECONDS", 0.0)
    return tmp_path


def test_those_of_a_killed_process_are_removed_and_those_of_a_living_one_stay(temp):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env=os.environ | {"TMPDIR": str(temp)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        with temporary_folder(COPIES) as own:
            assert remove_abandoned() == 0
            assert len(list(temp.iterdir())) == 2
            process.kill()
            process.wait()
            assert remove_abandoned() == 1
            assert list(temp.iterdir()) == [own]
    assert list(temp.iterdir()) == []


def test_folders_of_others_and_links_stay(temp, monkeypatch):
    (temp / "other").mkdir()
    (temp / f"{UPLOADS}link").symlink_to(temp / "other")
    assert remove_abandoned() == 0
    (temp / f"{UPLOADS}x").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert remove_abandoned() == 0
    monkeypatch.undo()
    assert len(list(temp.iterdir())) == 3
