"""What stands in the way of a command is said in a line, without a traceback or a password."""

import os
import shutil
import sqlite3
import subprocess
import sys

import pytest

from service.settings import Settings
from service.store import database as store

PASSWORD = "geheim"
DATABASE = "FAIRTUNE_DATABASE_URL"


def fairtune(folder, *arguments, **environment):
    """In a process of its own: what is caught by nobody would be printed at its end."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("FAIRTUNE_")}
    return subprocess.run(
        [sys.executable, "-m", "service.cli.main", *arguments],
        env=ours | {"FAIRTUNE_WAIT_SECONDS": "0", "COLUMNS": "200"} | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def in_a_line(ended, *named) -> str:
    assert ended.returncode in (1, 2), ended.stderr
    last = ended.stderr.splitlines()[-1]
    for name in named:
        assert name in last
    assert "Traceback" not in ended.stderr
    assert "report it" not in ended.stderr
    assert PASSWORD not in ended.stderr
    return last


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FAIRTUNE_ALLOWED_MODELS", ""),
        ("FAIRTUNE_ALLOWED_MODELS", "[foo"),
        ("FAIRTUNE_CORS_ORIGINS", "http://x/"),
        (DATABASE, "postgresql+asyncpg://u:geheim@h/d"),
        (DATABASE, "postgresql:u:geheim"),
        (DATABASE, "sqlite://"),
    ],
)
def test_a_setting_that_cannot_be_is_named(variable, value, tmp_path):
    for command in (("migrate",), ("keys", "list")):
        ended = fairtune(tmp_path, *command, **{variable: value})
        assert ended.returncode == 2
        assert len(ended.stderr.splitlines()) == 1
        in_a_line(ended, f"{variable}: ")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:////proc/x/y.db", "no database at /proc/x/y.db"),
        ("sqlite:///{folder}/junk.db", "file is not a database; see FAIRTUNE_DATABASE_URL"),
        ("postgresql://u:geheim@127.0.0.1:1/d?foo=bar", "foo"),
        ("postgresql://u:geheim@127.0.0.1:1/d", "cannot be reached"),
    ],
)
def test_a_database_that_cannot_be_used_is_named(url, said, tmp_path):
    (tmp_path / "junk.db").write_text("neither a database nor empty" * 100)
    url = url.format(folder=tmp_path)
    for command in (("keys", "list"), ("migrate",)):
        ended = fairtune(tmp_path, *command, FAIRTUNE_DATABASE_URL=url)
        assert ended.returncode == 1
        line = in_a_line(ended)
        if command[0] == "keys":
            assert len(ended.stderr.splitlines()) == 1
            assert said in line


@pytest.mark.parametrize("command", ["migrate", "up"])
def test_a_database_that_stays_locked_is_named(command, tmp_path, migrated_sqlite, monkeypatch):
    """In this process: there the wait for a lock is cut short."""
    from typer.testing import CliRunner

    from service.cli.main import app
    from service.ops import startup

    path = tmp_path / "locked.db"
    shutil.copyfile(migrated_sqlite, path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "SQLITE_BUSY_SECONDS", 0.1)
    monkeypatch.setattr(startup, "wait_for", lambda *_: None)  # it was free a moment ago
    monkeypatch.setenv(DATABASE, f"sqlite:///{path}")
    with sqlite3.connect(path) as holder:
        holder.execute("BEGIN IMMEDIATE")
        ended = CliRunner().invoke(app, (command,))
        holder.rollback()
    holder.close()
    assert ended.exit_code == 1
    assert "database is locked; see FAIRTUNE_DATABASE_URL" in ended.stderr.splitlines()[-1]
    assert isinstance(ended.exception, SystemExit)


def test_a_data_directory_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "file").touch()
    ended = fairtune(tmp_path, "demo", "--data-dir", str(tmp_path / "file" / "below"))
    in_a_line(ended, "file/below", "FAIRTUNE_DATA_DIR")


@pytest.mark.parametrize("command", ["up", "api"])
def test_the_key_that_is_missing_is_to_be_made_in_the_same_place(command, tmp_path):
    settings = Settings(data_dir=tmp_path / "X")
    there = settings.variables if command == "api" else {}
    option = () if command == "api" else ("--data-dir", str(settings.data_dir))
    assert fairtune(tmp_path, "migrate", "--data-dir", str(settings.data_dir)).returncode == 0
    more = {"FAIRTUNE_WAIT_SECONDS": "0", "FAIRTUNE_HOST": "0.0.0.0"}
    ended = fairtune(tmp_path, command, *option, **there | more)
    assert ended.returncode == 2
    line = in_a_line(ended)
    assert f"fairtune keys create NAME --role admin --data-dir {settings.data_dir}`" in line
