"""How every program starts and ends: arguments, signals, log, failures, exit status.

| ends with | exit status | last event |
| --- | --- | --- |
| the work done | EXIT_DONE | phase done |
| a ProgramFailure, no memory, no disk space, any other exception | EXIT_FAILED | failure |
| TERM | EXIT_STOPPED | any |
| the supervisor's pipe closed (with --supervised) | EXIT_STOPPED, at once | any |
| a signal, an abort in native code, events.jsonl not writable | anything else: a crash | any |

What nobody foresaw has the reason `internal`; tracebacks go to training.log alone. This
module imports no training library, so that a program says `starting` within a fraction of a second.
"""

import argparse
import errno
import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGTERM, SIGUSR1, signal

from service.domain.errors import ProgramFailure
from service.domain.events import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, FailureEvent
from service.domain.job import EVENTS_FILE, LOG_FILE, Job
from service.domain.states import FailureReason, Phase
from worker.programs.reporter import Reporter, Stop, Stopped

log = logging.getLogger("fairtune")


@dataclass(frozen=True, slots=True)
class Program:
    directory: Path
    job: Job
    reporter: Reporter
    stop: Stop


def launch(main: Callable[[Program], None], purpose: str) -> None:
    """Run `main` on the job directory named on the command line and end the process."""
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("job_dir", type=Path, help="directory with job.json and the dataset")
    parser.add_argument(
        "--supervised",
        action="store_true",
        help="standard input is a pipe of the supervisor: exit when it closes",
    )
    arguments = parser.parse_args()
    directory: Path = arguments.job_dir.resolve()
    if not directory.is_dir():
        parser.error(f"{directory} is not a directory")
    stop = Stop()
    signal(SIGTERM, stop.on_signal)
    signal(SIGINT, stop.on_signal)
    if arguments.supervised:
        _exit_with_pipe()
    # OpenMP's idle threads spin by default. torch and bitsandbytes each bring a pool of them, which
    # then fight for the cores: on two busy ones everything took ten to thirty times as long. Read
    # when the libraries are loaded, so it is early enough here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    console = _redirect_output(directory / LOG_FILE)
    status, message = _run(main, directory, stop)
    logging.shutdown()
    if not arguments.supervised:
        os.write(console, f"{message}\n".encode())
    # Not sys.exit: the threads of native libraries have crashed interpreters on their way out.
    os._exit(status)


def _run(main: Callable[[Program], None], directory: Path, stop: Stop) -> tuple[int, str]:
    """Exit status, and one line for a person."""
    reporter: Reporter | None = None
    try:
        reporter = Reporter(directory / EVENTS_FILE)
        reporter.phase(Phase.STARTING)
        main(Program(directory, Job.read(directory), reporter, stop))
    except Stopped:
        log.info("stopped")
        return EXIT_STOPPED, "stopped"
    except Exception as error:
        log.exception("failed")
        failure = as_failure(error)
        message = f"{failure.reason}: {failure.detail}"
        if reporter is None:
            return 1, message
        try:
            reporter.emit(FailureEvent, reason=failure.reason, detail=failure.detail)
        except OSError:  # the disk is full for events too: to the supervisor that is a crash
            log.exception("the failure could not be reported")
            return 1, message
        return EXIT_FAILED, message
    return EXIT_DONE, f"done: {directory}"


def as_failure(error: Exception) -> ProgramFailure:
    """The failure that stands for any exception. What nobody foresaw is `internal`."""
    if isinstance(error, ProgramFailure):
        return error
    text = str(error)
    first_line = (text.strip().splitlines() or [""])[0][:300]
    torch = sys.modules.get("torch")
    if (
        isinstance(error, MemoryError)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or "DefaultCPUAllocator" in text
    ):
        return ProgramFailure(
            FailureReason.OUT_OF_MEMORY, f"The machine's memory did not suffice. {first_line}"
        )
    no_space = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if no_space or "No space left on device" in text:
        return ProgramFailure(FailureReason.NO_SPACE, "The worker's disk is full.")
    return ProgramFailure(
        FailureReason.INTERNAL,
        f"An unforeseen {type(error).__name__}: {first_line} (training.log has the traceback)",
    )


def _exit_with_pipe() -> None:
    """End the process the moment standard input closes: nothing may outlive its supervisor."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(EXIT_STOPPED)

    threading.Thread(target=wait, name="supervisor-pipe", daemon=True).start()


def _redirect_output(path: Path) -> int:
    """Send all output, that of native libraries too, to the log; return the old standard error."""
    console = os.dup(2)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    # Progress bars redraw a line; in a file they are thousands of lines.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # Where a process that hangs or dies in native code stood: kill -USR1 prints every thread.
    faulthandler.enable(sys.stderr)
    faulthandler.register(SIGUSR1, sys.stderr)
    return console
