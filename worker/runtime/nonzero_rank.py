"""A nonzero rank of a run: its start, its end, and the report of its failure to rank 0.

It writes no events and no files, only lines in training.log, which carry its rank. It is never
asked to stop: rank 0 is, saves a checkpoint, and ends it.
"""

import os
import signal
import threading
from argparse import Namespace
from collections.abc import Callable
from types import FrameType
from typing import Any

from service.domain.errors import ProgramFailure
from service.domain.events import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED
from service.ops import parent_pipe
from worker.runtime.events import Reporter, Stopped
from worker.runtime.ranks import ROOT_CAUSE_SECONDS, RankGroup, encode_failure


class NonzeroRank(RankGroup):
    """The group as rank 0 described it on the command line."""

    def __init__(self, arguments: Namespace) -> None:
        self.rank, self.size = arguments.rank, arguments.of
        self.port, self.model = arguments.meeting, arguments.model


class SilentReporter(Reporter):
    """Discards all events: rank 0 emits them."""

    def __init__(self) -> None:
        self.is_continued = False

    def emit(self, kind: Any, **fields: Any) -> None:
        """Emit nothing."""

    def flush(self) -> None:
        """Write nothing."""


def attach() -> int:
    """Exit with rank 0, and forward stop signals of this process to it.

    Returns the pipe for `encode_failure`: a copy of standard output, which may be redirected now.
    """
    rank_zero = os.getppid()

    def forward(_signal: int, _frame: FrameType | None) -> None:
        if os.getppid() == rank_zero:
            os.kill(rank_zero, signal.SIGTERM)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    parent_pipe.exit_with_parent()
    return os.dup(1)


def run(
    main: Callable[[], None], pipe: int, to_failure: Callable[[Exception], ProgramFailure]
) -> int:
    """Call `main` and return the exit status. `to_failure` logs an exception and converts it."""
    try:
        main()
    except Stopped:
        return EXIT_STOPPED
    except Exception as error:  # noqa: BLE001 - `to_failure` logs it, and rank 0 reports it
        os.write(pipe, encode_failure(to_failure(error)))
        # Rank 0 ends this process. If it ended by itself, the other ranks would lose their
        # connection to it, and their errors might reach rank 0 first.
        threading.Event().wait(4 * ROOT_CAUSE_SECONDS)
        return EXIT_FAILED
    return EXIT_DONE
