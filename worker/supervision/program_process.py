"""A program as a child process, in a process group of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import structlog

from service.observability.logs import Format
from worker.supervision import job_directory

# A program gets the machine's environment without anything that gives access to the database, the
# broker or the store. HF_TOKEN remains: a program needs it for a gated base model.
_SECRET_PREFIXES = (
    "FAIRTUNE_",
    "AWS_",
    "PG",
    "POSTGRES",
    "REDIS",
    "CELERY",
    "DATABASE_",
    "BROKER_",
)
_SECRET_WORDS = ("PASSWORD", "SECRET", "TOKEN", "API_KEY", "CREDENTIAL")
_ALLOWED = frozenset({"HF_TOKEN"})

_DUMP_SECONDS = 1.0
_KILL_SECONDS = 30.0
_GROUP_SECONDS = 5.0
_POLL_SECONDS = 0.01

log = structlog.get_logger()


def program_environment(environment: dict[str, str]) -> dict[str, str]:
    """Return `environment` for a program, without the service's settings and secrets."""
    allowed = {
        name: value
        for name, value in environment.items()
        if name in _ALLOWED
        or not (
            name.startswith(_SECRET_PREFIXES) or any(word in name.upper() for word in _SECRET_WORDS)
        )
    }
    return allowed | {"PYTHONUNBUFFERED": "1"}


class ProgramProcess:
    """A process `python -m PROGRAM DIRECTORY`, so that ps shows the job it belongs to.

    It ends with this process in every case: its standard input is a pipe from here, and the kernel
    kills it when the thread that made this object is gone (service.ops.parent_pipe).
    """

    def __init__(
        self, program: str, directory: Path, max_silence: float, log_format: Format
    ) -> None:
        """Start it. Without a heartbeat for `max_silence` seconds it stops as on TERM.

        Raises OSError.
        """
        command = [sys.executable, "-m", program, str(directory)]
        with job_directory.open_log(directory) as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [*command, f"--supervised={max_silence:g}", f"--log-format={log_format}"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=program_environment(dict(os.environ)),
                start_new_session=True,
            )
        assert self._process.stdin is not None
        self._pipe = self._process.stdin
        os.set_blocking(self._pipe.fileno(), False)

    def __enter__(self) -> "ProgramProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()  # in every case, no program outlives its supervisor
        self._pipe.close()

    def status(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> None:
        """Wait until it ends, at most `seconds`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=seconds)

    def send_heartbeat(self) -> None:
        """Tell the program that its supervisor is alive."""
        # The pipe is full if the program has been stopped for hours: it holds enough heartbeats.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._pipe.fileno(), b".")

    def terminate(self) -> None:
        """Request a checkpoint at the next step, and the end."""
        self._process.terminate()

    def dump_stacks(self) -> None:
        """Have it write a stack trace of each thread to its log, if it still can."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGUSR1)
        self.wait(_DUMP_SECONDS)

    def kill(self) -> int:
        """Kill what remains of its process group; return the exit status."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.wait(_KILL_SECONDS)
        status = self._process.poll()
        if status is None:  # blocked in the kernel: a driver or a network file system hangs
            log.error("the program cannot be killed", pid=self._process.pid)
            return -signal.SIGKILL
        self._wait_for_group()
        return status

    def _wait_for_group(self) -> None:
        """Wait for its other processes too: their GPU memory is released only then."""
        deadline = time.monotonic() + _GROUP_SECONDS
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < deadline:
                os.killpg(self._process.pid, 0)
                time.sleep(_POLL_SECONDS)
