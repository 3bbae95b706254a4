"""Another process of a run than its first one: how it starts, ends, and says why it failed.

It writes no event and no file but its lines in training.log, where they are marked with its rank.
It is never told to stop: rank 0 is, saves, and ends it.
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
from worker.runtime import parent_pipe
from worker.runtime.events import Reporter, Stopped
from worker.runtime.ranks import ROOT_CAUSE_SECONDS, RankGroup, encode_failure


class NonzeroRank(RankGroup):
    """The place that rank 0 gave on the command line."""

    def __init__(self, arguments: Namespace) -> None:
        self.rank, self.size = arguments.rank, arguments.of
        self.port, self.model = arguments.meeting, arguments.model


class SilentReporter(Reporter):
    """Says nothing: rank 0 says it."""

    def __init__(self) -> None:
        self.is_continued = False

    def emit(self, kind: Any, **fields: Any) -> None:
        """Not from here."""

    def flush(self) -> None:
        """Nothing waits."""


def follow() -> int:
    """End with rank 0, and hand it what tells this process to stop.

    Returns the pipe on which to say why the work failed; it is standard output, which from now on
    may go elsewhere.
    """
    leader = os.getppid()

    def hand_on(_signal: int, _frame: FrameType | None) -> None:
        if os.getppid() == leader:
            os.kill(leader, signal.SIGTERM)

    signal.signal(signal.SIGTERM, hand_on)
    signal.signal(signal.SIGINT, hand_on)
    parent_pipe.follow(None)
    return os.dup(1)


def work(main: Callable[[], None], pipe: int, failed: Callable[[Exception], ProgramFailure]) -> int:
    """Do it and return the exit status."""
    try:
        main()
    except Stopped:
        return EXIT_STOPPED
    except Exception as error:  # noqa: BLE001 - `failed` logs it, and rank 0 reports it
        os.write(pipe, encode_failure(failed(error)))
        # Rank 0 ends this process. If it did so itself, the others would lose their connection to
        # it, and what they make of that might come first.
        threading.Event().wait(4 * ROOT_CAUSE_SECONDS)
        return EXIT_FAILED
    return EXIT_DONE
