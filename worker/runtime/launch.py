"""How every program starts and ends: arguments, signals, log, failures, exit status.

| ends with | exit status | last event |
| --- | --- | --- |
| the work done | EXIT_DONE | phase done |
| a ProgramFailure, no memory, no disk space, any other exception | EXIT_FAILED | failure |
| the same, and no room on the disk for that event | EXIT_NO_SPACE | any |
| the same in another process of the run (see ranks) | as in the first one | failure |
| TERM; with --supervised=SECONDS, no word from the supervisor for so long | EXIT_STOPPED | any |
| the supervisor's pipe closed (with --supervised) | EXIT_STOPPED, at once | any |
| a signal, an abort in native code, events.jsonl not writable | anything else: a crash | any |
| a signal to another process of the run | KILL where it was KILL, else 1 | any |

What nobody foresaw has the reason `internal`; tracebacks go to training.log alone. This
module imports no training library, so that a program says `starting` within a fraction of a second.
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

from service.domain.errors import ProgramFailure
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
from worker.runtime import nonzero_rank, parent_pipe, ranks
from worker.runtime.disk_full import DiskSpace, is_full
from worker.runtime.events import Reporter, Stopped, StopSignal
from worker.runtime.out_of_memory import BatchTooLarge, is_out_of_memory
from worker.runtime.ranks import RankGroup, RankZero

log = structlog.get_logger("fairtune")


@dataclass(frozen=True, slots=True)
class Program:
    directory: Path
    job: Job
    reporter: Reporter
    stop: StopSignal
    space: DiskSpace
    ranks: RankGroup


def launch(main: Callable[[Program], None], purpose: str) -> None:
    """Run `main` on the job directory named on the command line and end the process."""
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("job_dir", type=Path, help="directory with job.json and the dataset")
    parser.add_argument(
        "--supervised",
        nargs="?",
        type=float,
        const=math.inf,
        metavar="SECONDS",
        help="standard input is a pipe of the supervisor: end when it closes, and stop as on TERM "
        "when nothing is written to it for so long; write it with =",
    )
    parser.add_argument(
        "--log-format",
        choices=get_args(logs.Format),
        default="console",
        help="how training.log is written: readable, or as one JSON object a line",
    )
    ranks.add_arguments(parser)
    arguments = parser.parse_args()
    directory: Path = arguments.job_dir.resolve()
    if not directory.is_dir():
        parser.error(f"{directory} is not a directory")
    silence: float | None = arguments.supervised
    if silence is not None and not silence > 0:
        parser.error("--supervised takes a positive number of seconds")
    stop, pipe = StopSignal(), -1
    if arguments.rank:
        pipe = nonzero_rank.follow()
    else:
        signal(SIGTERM, stop.on_signal)
        signal(SIGINT, stop.on_signal)
        if silence is not None:
            parent_pipe.follow(None if math.isinf(silence) else silence)
    ranks.clear_launcher_environment()
    # OpenMP's idle threads spin by default. torch and bitsandbytes each bring a pool of them, which
    # then fight for the cores: on two busy ones everything took ten to thirty times as long. Read
    # when the libraries are loaded, so it is early enough here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    console = _redirect_output(directory / LOG_FILE)
    # Always from `info` on: training.log is the user's, whatever the worker's own log leaves out.
    part = Path(sys.argv[0]).stem + (f"-{arguments.rank}" if arguments.rank else "")
    logs.configure(part, arguments.log_format)
    if arguments.rank:
        status, message = (
            _help(main, directory, stop, nonzero_rank.NonzeroRank(arguments), pipe),
            "",
        )
    else:
        status, message = _run(main, directory, stop)
    logging.shutdown()
    if silence is None and message:
        os.write(console, f"{message}\n".encode())
    # Not sys.exit: the threads of native libraries have crashed interpreters on their way out.
    os._exit(status)


def _run(main: Callable[[Program], None], directory: Path, stop: StopSignal) -> tuple[int, str]:
    """Exit status, and one line for a person."""
    try:
        reporter = Reporter(directory / EVENTS_FILE)
    except OSError as error:
        log.exception("no events can be written")
        return 1, str(error)
    space = DiskSpace(reporter, stop)

    def report_of_another(failure: ProgramFailure) -> int:
        reporter.block_other_threads()
        try:
            return _report(failure, reporter, space)[0]
        except Stopped:
            return EXIT_STOPPED

    leader = RankZero(report_of_another)
    try:
        try:
            reporter.phase(Phase.STARTING)
            with stop.at_once():
                job = Job.read(directory)
                _introduce(job)
                main(Program(directory, job, reporter, stop, space, leader))
            space.write_with_retry("the last events", reporter.flush, warn=False)
        except Exception as error:
            failure = to_failure(error)
            leader.claim_exit(failure)
            log.exception("failed")
            return _report(failure, reporter, space)
    except Stopped:
        log.info("stopped")
        with contextlib.suppress(OSError):
            reporter.flush()
        return EXIT_STOPPED, "stopped"
    finally:
        leader.end()
    return EXIT_DONE, f"done: {directory}"


def _help(
    main: Callable[[Program], None], directory: Path, stop: StopSignal, place: RankGroup, pipe: int
) -> int:
    """The same in another process than the run's first one."""

    def work() -> None:
        job, reporter = Job.read(directory), nonzero_rank.SilentReporter()
        _introduce(job)
        with stop.at_once():
            main(Program(directory, job, reporter, stop, DiskSpace(reporter, stop), place))

    def failed(error: Exception) -> ProgramFailure:
        log.exception("failed")
        return to_failure(error)

    return nonzero_rank.work(work, pipe, failed)


def _introduce(job: Job) -> None:
    """From here on each line of the log says whose it is."""
    structlog.contextvars.bind_contextvars(
        run_id=job.run_id, job_id=job.job_id, token=job.token, request_id=job.request_id
    )
    log.info("program begins", resume_from=job.resume_from)


def _report(failure: ProgramFailure, reporter: Reporter, space: DiskSpace) -> tuple[int, str]:
    """The same, for a failure, which becomes the last event. Raises Stopped."""
    message = f"{failure.reason}: {failure.detail}"
    batch = failure.batch if isinstance(failure, BatchTooLarge) else None
    try:
        reporter.emit(FailureEvent, reason=failure.reason, detail=failure.detail, batch=batch)
        if failure.reason == FailureReason.NO_SPACE:
            reporter.flush()  # as long as is sensible was waited before
        else:
            space.write_with_retry("the failure", reporter.flush, warn=False)
    except (OSError, ProgramFailure) as error:
        log.exception("the failure could not be reported")
        full = is_full(error) or isinstance(error, ProgramFailure)
        return (EXIT_NO_SPACE if full else 1), message
    return EXIT_FAILED, message


def to_failure(error: Exception) -> ProgramFailure:
    """The failure that stands for any exception. What nobody foresaw is `internal`."""
    if isinstance(error, ProgramFailure):
        return error
    first_line = (str(error).strip().splitlines() or [""])[0][:300]
    if is_out_of_memory(error):
        return ProgramFailure(
            FailureReason.OUT_OF_MEMORY, f"The machine's memory did not suffice. {first_line}"
        )
    if is_full(error):
        return ProgramFailure(FailureReason.NO_SPACE, "The worker's disk is full.")
    return ProgramFailure(
        FailureReason.INTERNAL,
        f"An unforeseen {type(error).__name__}: {first_line} (training.log has the traceback)",
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
    # Where a process that hangs or dies in native code stood: kill -USR1 prints every thread.
    faulthandler.enable(sys.stderr)
    faulthandler.register(SIGUSR1, sys.stderr)
    return console
