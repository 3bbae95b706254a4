"""The processes that train one run together. The first one starts, watches and ends the others.

The program that the supervisor started is rank 0: its exit status is the program's, and it alone
writes events and files. Each other one (runtime.nonzero_rank) has a pipe from it, whose closing
ends it, and a pipe back, on which it says why it failed. Whichever of them fails or dies, rank 0
ends them all, with that one's reason. docs/adr/0013-multi-process-training.md
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
"""A process loses its connection because another one died: so long that one's end is waited for."""

# Of a cluster's launcher that started the worker. accelerate and torch would wait for its others.
_CLUSTER = (
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
    """Be alone, whatever the environment says: who trains together is decided here."""
    for name in _CLUSTER:
        os.environ.pop(name, None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What rank 0 appends to its own command line for another rank; ps shows it."""
    for name, kind in (("rank", int), ("of", int), ("meeting", int), ("model", Path)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)


class RankGroup:
    """The place of this process among those of its run; the only one unless `start` says more."""

    rank: int = 0
    size: int = 1
    port: int | None = None
    """Where they meet on the loopback interface: rank 0 has the listening socket `listener`."""
    listener: int | None = None
    model: Path | None = None
    """The base model's directory, which rank 0 found for the others."""

    @property
    def is_rank_zero(self) -> bool:
        return self.rank == 0

    def start(self, size: int, model: Path) -> None:
        """Have `size` processes in all, from here on."""

    def dismiss(self) -> None:
        """The others have done their part: how they end does not matter any more."""


@dataclass(frozen=True, slots=True)
class RankExit:
    """How one of the others ended; without a failure it died."""

    rank: int
    status: int | None
    failure: ProgramFailure | None

    @property
    def may_be_secondary(self) -> bool:
        """Whether it may only be what another one's end looks like from there."""
        return self.failure is not None and self.failure.reason == FailureReason.INTERNAL


class RankZero(RankGroup):
    """Rank 0. `report` writes a failure as the last event and returns the exit status."""

    def __init__(self, report: Callable[[ProgramFailure], int]) -> None:
        self._report = report
        self._others: list[subprocess.Popen[bytes]] = []
        self._endings: queue.Queue[RankExit] = queue.Queue()
        self._right_to_end = threading.Lock()
        self._ends: threading.Thread | None = None
        """Who has it."""
        self._judged = threading.Event()
        self._dismissed = False

    def start(self, size: int, model: Path) -> None:
        """The others die with the thread that starts them (see parent): it must be the main one.

        Raises OSError.
        """
        if size == 1:
            return
        self.size = size
        # Read when the libraries are loaded. Each has a share of the cores, unless told otherwise.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // size)))
        meeting = socket.create_server(("127.0.0.1", 0))
        self.port, self.listener = meeting.getsockname()[1], meeting.detach()
        for rank in range(1, size):
            place = [f"--rank={rank}", f"--of={size}", f"--meeting={self.port}", f"--model={model}"]
            process = subprocess.Popen(  # noqa: S603 - our own command line once more
                [sys.executable, *sys.orig_argv[1:], *place],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._others.append(process)
            _thread(self._watch, rank, process)
        _thread(self._judge)

    def dismiss(self) -> None:
        self._dismissed = True

    def claim_exit(self, failure: ProgramFailure | None = None) -> None:
        """Return when it is this thread's turn to end the process; never where it is another's.

        With an unforeseen failure only when none of the others has a reason for it.
        """
        if self._ends is threading.current_thread():
            return
        if self._others and failure is not None and failure.reason == FailureReason.INTERNAL:
            self._judged.wait(2 * ROOT_CAUSE_SECONDS)
        if self._judged.is_set() and threading.current_thread() is threading.main_thread():
            threading.Event().wait()
        self._right_to_end.acquire()
        self._ends = threading.current_thread()

    def end(self) -> None:
        """End the others, and wait until what they hold on GPUs is free."""
        self.claim_exit()
        for process in self._others:
            process.kill()
        for process in self._others:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)

    def _watch(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        if said := process.stdout.readline():
            self._endings.put(RankExit(rank, None, decode_failure(said)))
        elif (status := process.wait()) not in (EXIT_DONE, EXIT_STOPPED):
            self._endings.put(RankExit(rank, status, None))

    def _judge(self) -> None:
        """Wait for the first of the others to fail, and end all with the reason."""
        ending = self._endings.get()
        until = time.monotonic() + ROOT_CAUSE_SECONDS
        while ending.may_be_secondary and (left := until - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                other = self._endings.get(timeout=left)
                ending = ending if other.may_be_secondary else other
        if self._dismissed:
            return
        self._judged.set()
        self.claim_exit()
        if ending.failure is not None:
            log.error("a process of the run failed", rank=ending.rank, of=self.size)
            status = self._report(ending.failure)
        else:
            assert ending.status is not None
            how = f"signal {-ending.status}" if ending.status < 0 else f"status {ending.status}"
            log.error(f"process {ending.rank} of {self.size} ended with {how}")
            status = 1
        self.end()
        if ending.status == -signal.SIGKILL:
            # To the supervisor a kill by the kernel, for memory, is the same in whichever process.
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(status)


def encode_failure(failure: ProgramFailure) -> bytes:
    """A failure as the line that `decode_failure` reads."""
    batch = failure.batch if isinstance(failure, BatchTooLarge) else None
    line = {"reason": failure.reason, "detail": failure.detail, "batch": batch}
    return json.dumps(line).encode() + b"\n"


def decode_failure(line: bytes) -> ProgramFailure:
    said = json.loads(line)
    if said["batch"] is not None:
        return BatchTooLarge(said["batch"], said["detail"])
    return ProgramFailure(FailureReason(said["reason"]), said["detail"])


def _cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _thread(work: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, name="ranks", daemon=True).start()
