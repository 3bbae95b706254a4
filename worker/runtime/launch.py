"""Start and end of every program: arguments, signals, log, failures, exit status.

| ends with | exit status | last event |
| --- | --- | --- |
| the work done | EXIT_DONE | phase done |
| ProgramFailure, out of memory, full disk, any other exception | EXIT_FAILED | failure |
| the same, and the disk is too full for that event | EXIT_NO_SPACE | any |
| the same in a nonzero rank (worker.runtime.ranks) | as in rank 0 | failure |
| TERM; with --supervised=SECONDS, silence of the supervisor for that long | EXIT_STOPPED | any |
| the supervisor's pipe closed (with --supervised) | EXIT_STOPPED, at once | any |
| a signal, an abort in native code, events.jsonl not writable | anything else: a crash | any |
| a signal to a nonzero rank | KILL if it was KILL, else 1 | any |

Unexpected exceptions have the reason `internal`; tracebacks go to training.log only. This module
imports no training library, so that a program reports `starting` within a fraction of a second.
"""

import argparse
import contextlib
import faulthandler
import logging
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGTERM, SIGUSR1, signal
from typing import get_args

import structlog

from service.domain.errors import ProgramFailure, first_line
from service.domain.events import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_NO_SPACE,
    EXIT_STOPPED,
    FailureEvent,
)
from service.domain.job import EVENTS_FILE, LOG_FILE, Job
from service.domain.states import FailureReason, Phase
from service.observability import logs
from service.ops import parent_pipe
from worker.runtime import nonzero_rank, ranks
from worker.runtime.disk_errors import is_full
from worker.runtime.disk_full import DiskSpace
from worker.runtime.events import Reporter, Stopped, StopSignal
from worker.runtime.nonzero_rank import NonzeroRank, SilentReporter
from worker.runtime.out_of_memory import BatchTooLarge, is_out_of_memory
from worker.runtime.ranks import RankGroup, RankZero

log = structlog.get_logger("fairtune")


@dataclass(frozen=True, slots=True)
class Program:
    """A running program: its job, and its means to report, stop and write."""

    directory: Path
    job: Job
    reporter: Reporter
    stop: StopSignal
    space: DiskSpace
    ranks: RankGroup


def launch(main: Callable[[Program], None], purpose: str) -> None:
    """Run `main` on the job directory named on the command line and end the process."""
    parser = _parser(purpose)
    arguments = parser.parse_args()
    directory: Path = arguments.job_dir.resolve()
    if not directory.is_dir():
        parser.error(f"{directory} is not a directory")
    max_silence: float | None = arguments.supervised
    if max_silence is not None and not max_silence > 0:
        parser.error("--supervised takes a positive number of seconds")
    stop, failure_pipe = StopSignal(), -1
    if arguments.rank:
        failure_pipe = nonzero_rank.attach()
    else:
        signal(SIGTERM, stop.on_signal)
        signal(SIGINT, stop.on_signal)
        if max_silence is not None:
            parent_pipe.exit_with_parent(None if math.isinf(max_silence) else max_silence)
    ranks.clear_launcher_environment()
    # OpenMP's idle threads spin by default. torch and bitsandbytes each bring a thread pool, and
    # the two compete for the cores: on two busy ones everything took ten to thirty times as long.
    # Read when the libraries are imported, so it is early enough here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    console = _redirect_output(directory / LOG_FILE)
    # Always from `info` on: training.log is the user's, whatever the level of the worker's own log.
    part = Path(sys.argv[0]).stem + (f"-{arguments.rank}" if arguments.rank else "")
    logs.configure(part, arguments.log_format)
    if arguments.rank:
        group = NonzeroRank(arguments)
        status, message = _run_nonzero_rank(main, directory, stop, group, failure_pipe), ""
    else:
        status, message = _run(main, directory, stop)
    logging.shutdown()
    if max_silence is None and message:
        os.write(console, f"{message}\n".encode())
    # Not sys.exit: threads of native libraries have crashed interpreters at exit.
    os._exit(status)


def _parser(purpose: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("job_dir", type=Path, help="directory with job.json and the dataset")
    parser.add_argument(
        "--supervised",
        nargs="?",
        type=float,
        const=math.inf,
        metavar="SECONDS",
        help="standard input is a pipe of the supervisor: exit when it closes, and stop as on TERM "
        "when nothing is written to it for SECONDS; use the form with =",
    )
    parser.add_argument(
        "--log-format",
        choices=get_args(logs.Format),
        default="console",
        help="format of training.log: readable lines, or one JSON object per line",
    )
    ranks.add_arguments(parser)
    return parser


def _run(main: Callable[[Program], None], directory: Path, stop: StopSignal) -> tuple[int, str]:
    """Run rank 0; return the exit status and one line for a person."""
    try:
        reporter = Reporter(directory / EVENTS_FILE)
    except OSError as error:
        log.exception("events.jsonl cannot be written")
        return 1, str(error)
    space = DiskSpace(reporter, stop)

    def report_nonzero_rank(failure: ProgramFailure) -> int:
        reporter.block_other_threads()
        try:
            return _report(failure, reporter, space)[0]
        except Stopped:
            return EXIT_STOPPED

    rank_zero = RankZero(report_nonzero_rank)
    try:
        try:
            reporter.phase(Phase.STARTING)
            with stop.immediate():
                job = Job.read(directory)
                _bind_log_context(job)
                main(Program(directory, job, reporter, stop, space, rank_zero))
            space.write_with_retry("the last events", reporter.flush, warn=False)
        except Exception as error:
            failure = to_failure(error)
            rank_zero.claim_exit(failure)
            log.exception("failed")
            return _report(failure, reporter, space)
    except Stopped:
        log.info("stopped")
        with contextlib.suppress(OSError):
            reporter.flush()
        return EXIT_STOPPED, "stopped"
    finally:
        rank_zero.end()
    return EXIT_DONE, f"done: {directory}"


def _run_nonzero_rank(
    main: Callable[[Program], None],
    directory: Path,
    stop: StopSignal,
    group: NonzeroRank,
    failure_pipe: int,
) -> int:
    """Run a nonzero rank; return the exit status."""

    def work() -> None:
        job, reporter = Job.read(directory), SilentReporter()
        _bind_log_context(job)
        with stop.immediate():
            main(Program(directory, job, reporter, stop, DiskSpace(reporter, stop), group))

    def log_failure(error: Exception) -> ProgramFailure:
        log.exception("failed")
        return to_failure(error)

    return nonzero_rank.run(work, failure_pipe, log_failure)


def _bind_log_context(job: Job) -> None:
    """Add the job's ids to every following line of the log."""
    structlog.contextvars.bind_contextvars(
        run_id=job.run_id, job_id=job.job_id, token=job.token, request_id=job.request_id
    )
    log.info("program started", resume_from=job.resume_from)


def _report(failure: ProgramFailure, reporter: Reporter, space: DiskSpace) -> tuple[int, str]:
    """Emit a failure as the last event; return exit status and message. Raises Stopped."""
    message = f"{failure.reason}: {failure.detail}"
    batch = failure.batch if isinstance(failure, BatchTooLarge) else None
    try:
        reporter.emit(FailureEvent, reason=failure.reason, detail=failure.detail, batch=batch)
        if failure.reason == FailureReason.NO_SPACE:
            reporter.flush()  # waiting for space has just timed out
        else:
            space.write_with_retry("the failure", reporter.flush, warn=False)
    except (OSError, ProgramFailure) as error:
        log.exception("the failure could not be reported")
        full = is_full(error) or isinstance(error, ProgramFailure)
        return (EXIT_NO_SPACE if full else 1), message
    return EXIT_FAILED, message


def to_failure(error: Exception) -> ProgramFailure:
    """Return the failure that represents an exception; an unexpected one is `internal`."""
    if isinstance(error, ProgramFailure):
        return error
    if is_out_of_memory(error):
        return ProgramFailure(FailureReason.OUT_OF_MEMORY, f"Out of memory: {first_line(error)}")
    if is_full(error):
        return ProgramFailure(FailureReason.NO_SPACE, "The worker's disk is full.")
    return ProgramFailure(
        FailureReason.INTERNAL,
        f"Unexpected {type(error).__name__}: {first_line(error)} (the traceback is in "
        "training.log)",
    )


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
    # Stack traces of a process that hangs or dies in native code: kill -USR1 prints every thread.
    faulthandler.enable(sys.stderr)
    faulthandler.register(SIGUSR1, sys.stderr)
    return console
