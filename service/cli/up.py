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
_BRIEF_SECONDS = 30.0
"""A process that ends within this time of its start has failed at once."""
_MAX_FAILURES = 5
_MAX_PAUSE_SECONDS = 30.0


class Restarts:
    """Decides when a process that ended by itself starts again.

    A process may be killed, by the kernel for its memory say, and another will do; one that fails
    at once each time will fail the next time, too.
    """

    def __init__(self, started_at: float) -> None:
        self._started_at = started_at
        self._failures = 0

    def ended(self, now: float) -> float | None:
        """Return the pause before the next start, which grows with failures; None to give up."""
        self._failures = self._failures + 1 if now - self._started_at < _BRIEF_SECONDS else 0
        if self._failures >= _MAX_FAILURES:
            return None
        pause = float(min(_MAX_PAUSE_SECONDS, 2**self._failures))
        self._started_at = now + pause
        return pause


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


def stop_seconds(settings: Settings) -> float:
    """Return the time that the child processes have to stop."""
    return settings.stop_grace_seconds + parent_pipe.STOP_SECONDS


def _watch(settings: Settings, processes: Processes, stop: threading.Event) -> int:
    """Restart processes that end by themselves, until a signal; return the exit status."""
    restarts = {command: Restarts(time.monotonic()) for command in processes}
    due: dict[str, float] = {}
    while not stop.wait(0.5):
        now = time.monotonic()
        for command, process in list(processes.items()):
            if command in due:
                if now >= due[command]:
                    del due[command]
                    processes[command] = _start(settings.variables, command)
                continue
            if process.poll() is None:
                continue
            with process:  # closes its standard input
                pass
            pause = restarts[command].ended(now)
            if pause is None:
                print(f"The {command} keeps ending unexpectedly; stopping.", file=sys.stderr)
                return 1
            message = f"The {command} ended unexpectedly; it starts again in {pause:g} s."
            print(message, file=sys.stderr, flush=True)
            due[command] = now + pause
    print("Stopping: a running job saves a checkpoint and returns to the queue.", flush=True)
    return 0


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
    """Return the exit status: 0 after a signal, 1 if a child process did not start or keeps ending.

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
        return _watch(settings, processes, stop)
    finally:
        _stop(processes, stop_seconds(settings))
