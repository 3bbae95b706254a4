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

# A program gets the machine's environment without what could open the database, the broker or the
# store. HF_TOKEN stays: it is how a program reaches a gated base model.
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
_KEPT = frozenset({"HF_TOKEN"})

_DUMP_SECONDS = 1.0
_KILL_SECONDS = 30.0
_GROUP_SECONDS = 5.0
_BLINK = 0.01

log = structlog.get_logger()


def program_environment(environment: dict[str, str]) -> dict[str, str]:
    """The environment for a program: `environment` without the service's settings and secrets."""
    kept = {
        name: value
        for name, value in environment.items()
        if name in _KEPT
        or not (
            name.startswith(_SECRET_PREFIXES) or any(word in name.upper() for word in _SECRET_WORDS)
        )
    }
    return kept | {"PYTHONUNBUFFERED": "1"}


class ProgramProcess:
    """`python -m PROGRAM DIRECTORY`, so that ps shows which job a process belongs to.

    It ends with this process in every case: it holds the other end of a pipe from here, and the
    kernel kills it when the thread that made this object is gone.
    """

    def __init__(
        self, program: str, directory: Path, silence_seconds: float, log_format: Format
    ) -> None:
        """Start it. Unheard from (`send_heartbeat`) for `silence_seconds` it stops as if by TERM.

        Raises OSError.
        """
        command = [sys.executable, "-m", program, str(directory)]
        with job_directory.open_log(directory) as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [*command, f"--supervised={silence_seconds:g}", f"--log-format={log_format}"],
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
        self.kill()  # whatever happened, no program outlives its supervisor
        self._pipe.close()

    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> None:
        """Until it ends, but no longer than that."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=seconds)

    def send_heartbeat(self) -> None:
        """Let it know that its supervisor is alive."""
        # The pipe is full when the program has been standing still for hours: it will see enough.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._pipe.fileno(), b".")

    def terminate(self) -> None:
        """Ask it to write a checkpoint at its next step and to end."""
        self._process.terminate()

    def dump_stacks(self) -> None:
        """Have it write to its log where each of its threads stands, if it still can."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGUSR1)
        self.wait(_DUMP_SECONDS)

    def kill(self) -> int:
        """End what is left of its process group; return the exit status."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.wait(_KILL_SECONDS)
        status = self._process.poll()
        if status is None:  # in the kernel's hands: a driver or a network file system hangs
            log.error("the program cannot be killed", pid=self._process.pid)
            return -signal.SIGKILL
        self._wait_for_group()
        return status

    def _wait_for_group(self) -> None:
        """Until its other processes are gone too: what they hold on GPUs is free only then."""
        until = time.monotonic() + _GROUP_SECONDS
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < until:
                os.killpg(self._process.pid, 0)
                time.sleep(_BLINK)
