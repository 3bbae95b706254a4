"""`fairtune up`: migrate, then the API and one worker as child processes, until Ctrl-C."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from types import FrameType
from urllib.error import URLError
from urllib.request import urlopen

from service.observability import logs
from service.ops import parent_pipe, startup
from service.settings import Settings
from service.store import migrate
from service.store.database import Database
from service.usecases import api_keys

_START_SECONDS = 60
_STOP_SECONDS = 15


def _is_free(settings: Settings) -> bool:
    """Whether the port can be had. Else whoever holds it would answer in the API's place."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError:
            return False
    return True


def _start(settings: Settings, part: str) -> subprocess.Popen[bytes]:
    """A part of the service in a session of its own: Ctrl-C reaches us alone, and we stop it."""
    return subprocess.Popen(  # noqa: S603 - our own module, no shell
        [sys.executable, "-m", "service.cli.main", part, parent_pipe.OPTION],
        stdin=subprocess.PIPE,
        env=os.environ | settings.variables,
        start_new_session=True,
    )


def _wait_ready(url: str, parts: dict[str, subprocess.Popen[bytes]], stop: threading.Event) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and not stop.is_set():
        if any(process.poll() is not None for process in parts.values()):
            return False
        with contextlib.suppress(URLError, OSError), urlopen(f"{url}/readyz", timeout=5):  # noqa: S310 - our own URL
            return True
        stop.wait(0.1)
    return False


def _stop(parts: dict[str, subprocess.Popen[bytes]], grace: float) -> None:
    for process in parts.values():
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    deadline = time.monotonic() + grace
    for process in parts.values():
        try:
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            # Its program sees the pipe close and ends too; the lease returns the job later.
            process.kill()
        with process:  # waits, then closes the lifeline
            pass


def run(settings: Settings) -> int:
    """Return the exit status: 0 when told to stop, 1 when a part ended by itself.

    Raises RefusedToStart.
    """
    stop = threading.Event()

    def told(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, told)
    if not _is_free(settings):
        print(
            f"Port {settings.port} of {settings.host} is taken; choose another with --port.",
            file=sys.stderr,
        )
        return 1
    logs.configure("up", settings.log_format, settings.log_level)
    startup.wait_for("migrate", settings)
    database = Database(settings.database_url)
    migrate.upgrade(database)
    api_keys.check_guarded(database, settings)
    database.dispose()
    parts = {part: _start(settings, part) for part in ("api", "worker")}
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{settings.port}"
    try:
        if not _wait_ready(url, parts, stop):
            if stop.is_set():
                return 0
            print("Fairtune did not start; the lines above say why.", file=sys.stderr)
            return 1
        print(f"Fairtune is up. Swagger UI: {url}/docs   Data: {settings.data_dir}", flush=True)
        print("Ctrl-C stops it.", flush=True)
        while not stop.wait(0.5):
            for part, process in parts.items():
                if process.poll() is not None:
                    print(f"The {part} ended by itself; stopping.", file=sys.stderr)
                    return 1
        print("Stopping: a running job saves a checkpoint and returns to the queue.", flush=True)
        return 0
    finally:
        _stop(parts, settings.stop_grace_seconds + _STOP_SECONDS)
