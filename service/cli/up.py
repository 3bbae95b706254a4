"""`fairtune up`: migrate, then run the API and one worker as child processes until Ctrl-C."""

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

Processes = dict[str, subprocess.Popen[bytes]]
_START_SECONDS = 60
_STOP_SECONDS = 15


def _is_free(host: str, port: int) -> bool:
    """Return True if the port is free; another server on it would answer instead of the API."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _start(variables: dict[str, str], command: str) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own: Ctrl-C reaches only this one, which stops it."""
    return subprocess.Popen(  # noqa: S603 - our own module, no shell
        [sys.executable, "-m", "service.cli.main", command, parent_pipe.OPTION],
        stdin=subprocess.PIPE,
        env=os.environ | variables,
        start_new_session=True,
    )


def _wait_ready(url: str, processes: Processes, stop: threading.Event) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and not stop.is_set():
        if any(process.poll() is not None for process in processes.values()):
            return False
        with contextlib.suppress(URLError, OSError), urlopen(f"{url}/readyz", timeout=5):  # noqa: S310 - our own URL
            return True
        stop.wait(0.1)
    return False


def _stop(processes: Processes, grace: float) -> None:
    for process in processes.values():
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    deadline = time.monotonic() + grace
    for process in processes.values():
        try:
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            # Its program ends too when the pipe closes; the job returns to the queue when its lease
            # expires.
            process.kill()
        with process:  # waits, then closes its standard input
            pass


def run(settings: Settings) -> int:
    """Return the exit status: 0 after a signal, 1 if a child process ended by itself.

    Raises RefusedToStart.
    """
    stop = threading.Event()

    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, on_signal)
    if not _is_free(settings.host, settings.port):
        print(
            f"Port {settings.port} of {settings.host} is in use; choose another with --port.",
            file=sys.stderr,
        )
        return 1
    logs.configure("up", settings.log_format, settings.log_level)
    startup.wait_for("migrate", settings)
    database = Database(settings.database_url)
    migrate.upgrade(database)
    api_keys.check_guarded(database, settings)
    database.dispose()
    processes = {command: _start(settings.variables, command) for command in ("api", "worker")}
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{settings.port}"
    try:
        if not _wait_ready(url, processes, stop):
            if stop.is_set():
                return 0
            print("Fairtune did not start; see the messages above.", file=sys.stderr)
            return 1
        print(f"Fairtune is up. Swagger UI: {url}/docs   Data: {settings.data_dir}", flush=True)
        print("Ctrl-C stops it.", flush=True)
        while not stop.wait(0.5):
            for command, process in processes.items():
                if process.poll() is not None:
                    print(f"The {command} ended unexpectedly; stopping.", file=sys.stderr)
                    return 1
        print("Stopping: a running job saves a checkpoint and returns to the queue.", flush=True)
        return 0
    finally:
        _stop(processes, settings.stop_grace_seconds + _STOP_SECONDS)
