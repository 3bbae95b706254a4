"""Small parts: settings, paths in the store, the filesystem transport, a program's environment."""

import json
import os
from pathlib import Path

import pytest
from celery import Celery
from pydantic import ValidationError

from service.artifacts import ArtifactStore, is_safe
from service.domain.errors import NotFound
from service.queue import celery_app, filesystem_transport
from service.settings import Settings


def test_everything_lies_below_the_data_directory_unless_it_is_set(tmp_path):
    settings = Settings(data_dir=tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path}/fairtune.db"
    assert settings.broker_url == f"file://{tmp_path}/broker"
    assert settings.artifacts_url == f"file://{tmp_path}/artifacts"
    assert settings.models_dir == tmp_path / "models"


def test_a_child_process_reads_the_same_settings(tmp_path, monkeypatch):
    settings = Settings(data_dir=tmp_path / "with space", port=1234, allowed_models=["a/*", "b"])
    for name, value in settings.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert Settings() == settings


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_postgres_urls_get_the_driver(scheme):
    settings = Settings(database_url=f"{scheme}://u:p@h/d")
    assert settings.database_url == "postgresql+psycopg://u:p@h/d"


@pytest.mark.parametrize(
    "wrong",
    [
        {"database_url": "mysql://x"},
        {"database_url": "postgresql+asyncpg://u:p@h/d"},
        {"database_url": "postgresql:u:pw"},
        {"database_url": "sqlite://"},
        {"database_url": "sqlite:///:memory:"},
        {"database_url": "sqlite:///file:x?mode=memory&uri=true"},
        {"database_url": "sqlite:///x.db?foo=bar"},
        {"database_url": "sqlite+aiosqlite:///x.db"},
        {"allowed_models": []},
        {"broker_url": "amqp://x"},
        {"artifacts_url": "s3:///prefix"},
        {"artifacts_url": "s3://key:secret@bucket"},
        {"artifacts_url": "s3://bucket/a//b"},
        {"artifacts_url": "s3://bucket/../b"},
        {"artifacts_url": "s3://bucket?endpoint=x"},
        {"artifacts_url": "gs://bucket"},
        {"lease_seconds": 0},
        {"port": 70000},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        Settings(**wrong)


@pytest.mark.parametrize(
    ("written", "read"),
    [("foo", ["foo"]), ("a/*, b", ["a/*", "b"]), ('["a,b", "c"]', ["a,b", "c"]), ("*", ["*"])],
)
def test_a_list_is_json_or_has_commas(written, read, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAIRTUNE_ALLOWED_MODELS", written)
    assert Settings().allowed_models == read
    monkeypatch.setenv("FAIRTUNE_CORS_ORIGINS", "")
    assert Settings().cors_origins == []


@pytest.mark.parametrize("path", ["a", "a/b.c", "runs/run_1/job/1/x y", "ü", "..a/b..", "a/..."])
def test_safe_paths(path):
    assert is_safe(path)


@pytest.mark.parametrize(
    "path", ["", ".", "..", "/a", "a/../b", "../a", "a//b", "a/", "./a", "a\\b", "a\0b", "a/.."]
)
def test_unsafe_paths(path, tmp_path):
    assert not is_safe(path)
    with pytest.raises(NotFound):
        ArtifactStore(tmp_path.as_uri()).open(path)


def test_a_put_that_fails_leaves_nothing_visible(tmp_path, monkeypatch):
    store = ArtifactStore((tmp_path / "store").as_uri())
    source = tmp_path / "source"
    source.write_bytes(b"first")
    store.put_file(source, "a/there")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("service.artifacts.directory.os.fsync", full)
    source.write_bytes(b"second")
    for key in ("a/new", "a/there"):
        with pytest.raises(OSError, match="No space"):
            store.put_file(source, key)
    assert [path.name for path in (tmp_path / "store" / "a").iterdir()] == ["there"]
    assert (tmp_path / "store" / "a" / "there").read_bytes() == b"first"


@pytest.fixture
def files_app(tmp_path) -> Celery:
    return celery_app.make_app(Settings(data_dir=tmp_path))


def test_a_message_appears_whole(tmp_path, files_app, monkeypatch):
    """Its final name is never that of a file still being written."""
    seen = []
    rename = Path.rename

    def watched(self, target):
        visible = list((tmp_path / "broker" / "messages").glob("*.msg"))
        seen.append((visible, self.read_text()))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    celery_app.notify(files_app, celery_app.QUEUE)
    ((visible, written),) = seen
    assert visible == []
    assert json.loads(written)["headers"]["argsrepr"] == "()"
    assert len(list((tmp_path / "broker" / "messages").glob("*.msg"))) == 1


def test_taken_messages_are_swept_after_an_hour(tmp_path, files_app):
    celery_app.notify(files_app, celery_app.QUEUE)
    with files_app.connection_for_read() as connection:
        queue = connection.SimpleQueue(celery_app.QUEUE)
        queue.get(timeout=5).ack()
        queue.close()
    folder = tmp_path / "broker"
    taken = list((folder / "processed").glob("*.msg"))
    assert len(taken) == 1
    assert filesystem_transport.sweep(folder) == 0
    old = taken[0].stat().st_mtime - 4000
    os.utime(taken[0], (old, old))
    assert filesystem_transport.sweep(folder) == 1
    assert list((folder / "processed").glob("*.msg")) == []


def test_a_program_gets_no_secret_but_the_model_hubs():
    from worker.supervision.program_process import program_environment

    kept = program_environment(
        {
            "PATH": "/bin",
            "HF_TOKEN": "hf",
            "HF_HOME": "/hf",
            "FAIRTUNE_DATABASE_URL": "x",
            "DATABASE_URL": "x",
            "AWS_ACCESS_KEY_ID": "x",
            "PGPASSWORD": "x",
            "MY_PASSWORD": "x",
            "GITHUB_TOKEN": "x",
            "REDIS_URL": "x",
            "OPENAI_API_KEY": "x",
        }
    )
    assert set(kept) == {"PATH", "HF_TOKEN", "HF_HOME", "PYTHONUNBUFFERED"}
