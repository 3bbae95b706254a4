"""What a container engine asks: is the process of this container alive?"""

import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from service.ops import container_health
from service.queue.sweep import Sweeper
from service.settings import Settings
from tests.support.installation import wait_until


@pytest.fixture
def answering():
    """Ports of servers, by the status with which they answer everything."""
    servers = []

    def serve(status: int) -> int:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status if self.path == "/healthz" else 404)
                self.end_headers()

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_port

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_api_is_alive_when_it_answers(answering):
    assert container_health.api_is_alive(answering(200))
    assert not container_health.api_is_alive(answering(500))


def test_the_api_is_not_alive_when_nobody_listens(answering):
    from service.cli.temporary_server import free_port

    assert not container_health.api_is_alive(free_port())


def test_a_worker_is_alive_for_a_while_after_each_beat(tmp_path):
    assert not container_health.worker_is_alive(tmp_path, sweep_seconds=10)  # it has not begun
    container_health.beat(tmp_path)
    assert container_health.worker_is_alive(tmp_path, sweep_seconds=10)
    long_ago = time.time() - container_health.PATIENCE_SECONDS - 11
    os.utime(tmp_path / container_health.FILE, (long_ago, long_ago))
    assert not container_health.worker_is_alive(tmp_path, sweep_seconds=10)
    assert container_health.worker_is_alive(tmp_path, sweep_seconds=60)  # not due again yet
    container_health.beat(tmp_path)
    assert container_health.worker_is_alive(tmp_path, sweep_seconds=10)


def test_a_beat_that_cannot_be_written_disturbs_nobody(tmp_path):
    container_health.beat(tmp_path / "gone")
    assert not container_health.worker_is_alive(tmp_path / "gone", sweep_seconds=10)


def test_a_sweep_that_fails_is_a_sign_of_life_and_one_that_hangs_is_none(tmp_path, monkeypatch):
    settings = Settings(data_dir=tmp_path, sweep_seconds=0.01)
    beats, hangs, goes_on = [], threading.Event(), threading.Event()

    def sweep() -> None:
        if len(beats) == 2:
            hangs.set()
            assert goes_on.wait(60)
        raise OSError("the database is unreachable")

    sweeper = Sweeper(settings, None, None, None, lambda: beats.append(time.monotonic()))  # type: ignore[arg-type]  # not asked
    monkeypatch.setattr(sweeper, "sweep", sweep)
    sweeper.start()
    try:
        assert hangs.wait(60)
        assert len(beats) == 2
        goes_on.set()
        wait_until(lambda: len(beats) > 2)
    finally:
        goes_on.set()
        sweeper.stop()


def test_the_check_reads_the_defaults_of_the_settings(tmp_path):
    """It must not import them, so it has its own."""
    fields = Settings.model_fields
    source = Path(container_health.__file__).read_text()
    assert f'"FAIRTUNE_PORT", "{fields["port"].default}"' in source
    assert f'"FAIRTUNE_DATA_DIR", "{fields["data_dir"].default}"' in source
    assert f'"FAIRTUNE_SWEEP_SECONDS", "{fields["sweep_seconds"].default:g}"' in source


def run(process: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import runpy, sys\n"
        "name = 'service.ops.container_health'\n"
        "try: runpy.run_module(name, run_name='__main__', alter_sys=False)\n"
        "finally: print(sorted(sys.modules))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, process],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_check_is_a_command_and_imports_nothing_heavy(tmp_path):
    assert run("worker", FAIRTUNE_DATA_DIR=str(tmp_path)).returncode == 1
    container_health.beat(tmp_path)
    lively = run("worker", FAIRTUNE_DATA_DIR=str(tmp_path))
    assert lively.returncode == 0
    for package in ("pydantic", "celery", "sqlalchemy", "structlog"):
        assert f"'{package}'" not in lively.stdout
    assert run("both").returncode == 1
