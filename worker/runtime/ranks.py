"""The processes that train one run together. Rank 0 starts, watches and ends the others.

The program that the supervisor started is rank 0: its exit status is the program's, and it alone
writes events and files. Each nonzero rank (worker.runtime.nonzero_rank) has a pipe from it, whose
closing ends it, and a pipe to it for the reason of a failure. Whichever rank fails or dies, rank 0
ends them all, with that rank's reason. docs/adr/0013-multi-process-training.md
"""

import argparse
import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.domain.errors import ProgramFailure
from service.domain.events import EXIT_DONE, EXIT_STOPPED
from service.domain.states import FailureReason
from worker.runtime.out_of_memory import BatchTooLarge

log = structlog.get_logger("fairtune")

ROOT_CAUSE_SECONDS = 5.0
"""Wait for the root cause after a failure that may be secondary, such as a lost connection to a
rank that died."""

_KILL_SECONDS = 30

# Variables of a cluster launcher that started the worker: accelerate and torch would wait for that
# launcher's other processes.
_LAUNCHER_VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
)


def clear_launcher_environment() -> None:
    """Remove a cluster launcher's variables: the processes of a run are determined here alone."""
    for name in _LAUNCHER_VARIABLES:
        os.environ.pop(name, None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that rank 0 appends to its own command line for a nonzero rank."""
    for name, kind in (("rank", int), ("of", int), ("meeting", int), ("model", Path)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)


class RankGroup:
    """The processes of this run, seen from this one; a single process until `start` adds others."""

    rank: int = 0
    size: int = 1
    port: int | None = None
    """Rendezvous port on the loopback interface; rank 0 has its listening socket, `listener`."""
    listener: int | None = None
    model: Path | None = None
    """The base model's directory, as rank 0 located it."""

    @property
    def is_rank_zero(self) -> bool:
        return self.rank == 0

    def start(self, size: int, model: Path) -> None:
        """Start the other processes, for `size` in total."""

    def dismiss(self) -> None:
        """Ignore from here on how the other ranks end: their work is done."""


@dataclass(frozen=True, slots=True)
class RankExit:
    """The end of a nonzero rank: its exit status, or the failure that it reported."""

    rank: int
    status: int | None
    failure: ProgramFailure | None

    @property
    def may_be_secondary(self) -> bool:
        """True if another rank's end may have caused it."""
        return self.failure is not None and self.failure.reason == FailureReason.INTERNAL

    @property
    def was_killed(self) -> bool:
        return self.status == -signal.SIGKILL


class RankZero(RankGroup):
    """Rank 0. `report` writes a failure as the last event and returns the exit status."""

    def __init__(self, report: Callable[[ProgramFailure], int]) -> None:
        self._report = report
        self._others: list[subprocess.Popen[bytes]] = []
        self._exits: queue.Queue[RankExit] = queue.Queue()
        self._exit_lock = threading.Lock()
        self._exiting_thread: threading.Thread | None = None
        """The thread that holds the lock, and ends the process."""
        self._failed = threading.Event()
        self._dismissed = False

    def start(self, size: int, model: Path) -> None:
        """Start the nonzero ranks.

        They die with the thread that starts them (service.ops.parent_pipe), so it must be the main
        thread. Raises OSError.
        """
        if size == 1:
            return
        self.size = size
        # Read when the libraries are imported. Each rank gets its share of the cores by default.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // size)))
        rendezvous = socket.create_server(("127.0.0.1", 0))
        self.port, self.listener = rendezvous.getsockname()[1], rendezvous.detach()
        for rank in range(1, size):
            options = [
                f"--rank={rank}",
                f"--of={size}",
                f"--meeting={self.port}",
                f"--model={model}",
            ]
            process = subprocess.Popen(  # noqa: S603 - our own command line once more
                [sys.executable, *sys.orig_argv[1:], *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._others.append(process)
            _start_thread(self._watch, rank, process)
        _start_thread(self._handle_first_failure)

    def dismiss(self) -> None:
        self._dismissed = True

    def claim_exit(self, failure: ProgramFailure | None = None) -> None:
        """Return if this thread is the one to end the process; block forever if another one is.

        An unexpected failure waits first, in case another rank reports the cause of it.
        """
        if self._exiting_thread is threading.current_thread():
            return
        if self._others and failure is not None and failure.reason == FailureReason.INTERNAL:
            self._failed.wait(2 * ROOT_CAUSE_SECONDS)
        if self._failed.is_set() and threading.current_thread() is threading.main_thread():
            threading.Event().wait()
        self._exit_lock.acquire()
        self._exiting_thread = threading.current_thread()

    def end(self) -> None:
        """Kill the other ranks and wait until their GPU memory is released."""
        self.claim_exit()
        for process in self._others:
            process.kill()
        for process in self._others:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_KILL_SECONDS)

    def _watch(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        if line := process.stdout.readline():
            self._exits.put(RankExit(rank, None, decode_failure(line)))
        elif (status := process.wait()) not in (EXIT_DONE, EXIT_STOPPED):
            self._exits.put(RankExit(rank, status, None))

    def _handle_first_failure(self) -> None:
        """Wait until a nonzero rank fails, then end all ranks with its reason."""
        rank_exit = self._root_cause()
        if self._dismissed:
            return
        self._failed.set()
        self.claim_exit()
        if rank_exit.failure is not None:
            log.error("a nonzero rank failed", rank=rank_exit.rank, of=self.size)
            status = self._report(rank_exit.failure)
        else:
            assert rank_exit.status is not None
            log.error(f"rank {rank_exit.rank} of {self.size} {describe_exit(rank_exit.status)}")
            status = 1
        self.end()
        if rank_exit.was_killed:
            # The supervisor treats a kill by the kernel, for memory, alike for every rank.
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(status)

    def _root_cause(self) -> RankExit:
        """Return the first rank's end, or that of one that follows soon, if that explains it."""
        rank_exit = self._exits.get()
        deadline = time.monotonic() + ROOT_CAUSE_SECONDS
        while rank_exit.may_be_secondary and (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                later = self._exits.get(timeout=left)
                rank_exit = rank_exit if later.may_be_secondary else later
        return rank_exit


def describe_exit(status: int) -> str:
    """Return how a process with that exit status, negative for a signal, ended."""
    return f"ended with signal {-status}" if status < 0 else f"ended with exit status {status}"


def encode_failure(failure: ProgramFailure) -> bytes:
    """Return a failure as one line, for `decode_failure`."""
    batch = failure.batch if isinstance(failure, BatchTooLarge) else None
    line = {"reason": failure.reason, "detail": failure.detail, "batch": batch}
    return json.dumps(line).encode() + b"\n"


def decode_failure(line: bytes) -> ProgramFailure:
    """Return the failure that `encode_failure` made a line of."""
    fields = json.loads(line)
    if fields["batch"] is not None:
        return BatchTooLarge(fields["batch"], fields["detail"])
    return ProgramFailure(FailureReason(fields["reason"]), fields["detail"])


def _cores() -> int:
    """Return the number of cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start_thread(work: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, name="ranks", daemon=True).start()
