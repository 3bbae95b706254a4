"""Child processes that end with their parent, and stop when it has been silent for too long.

Standard input is a pipe whose other end the parent holds. The kernel closes it however the parent
dies, SIGKILL included, and a thread of the child then ends the child. That thread does not run
while the child is stopped (SIGSTOP) or native code holds the interpreter's lock, so on Linux a
program also has the kernel kill it. A parent that is stopped or hangs closes nothing: a supervisor
writes a byte at intervals instead, and when none arrives, another worker is about to take over the
job.
"""

import ctypes
import os
import select
import signal
import sys
import threading
from collections.abc import Callable

from service.domain.events import EXIT_STOPPED
from service.ops.exit_deadline import exit_within

OPTION = "--lifeline"
"""Command-line option of a `fairtune` process that stops when its parent is gone."""

STOP_SECONDS = 15
"""Time for a worker beyond its program's grace: it stores the program's last files."""

_PR_SET_PDEATHSIG = 1


def stop_with_parent(grace: float) -> None:
    """Stop this process (TERM) when its parent is gone: for the API and the workers.

    It has ended `grace` seconds later, whatever its threads do.
    """

    def stop() -> None:
        exit_within(grace)
        _stop_self()

    _watch(stop)


def exit_with_parent(max_silence: float | None = None) -> None:
    """Exit at once (EXIT_STOPPED) when the parent is gone: for programs and their nonzero ranks.

    If the parent writes nothing for `max_silence` seconds, the program is stopped (TERM).
    """
    if sys.platform == "linux":
        _request_parent_death_signal()
    _watch(_exit_stopped, max_silence)


def read_pipe(pipe: int, timeout: float | None) -> bytes | None:
    """Return what arrived within `timeout` seconds (None: no limit), None if nothing did.

    b"" means that the pipe is closed. Data in the pipe counts however long ago the time ran out:
    this process may have been the one that was stopped.
    """
    ready, _, _ = select.select([pipe], [], [], timeout)
    if not ready:
        ready, _, _ = select.select([pipe], [], [], 0)
    return os.read(pipe, 1 << 16) if ready else None


def _watch(on_closed: Callable[[], object], max_silence: float | None = None) -> None:
    """Watch standard input on a thread; call `on_closed` when it ends, stop after a silence."""

    def watch() -> None:
        timeout = max_silence
        while (data := read_pipe(0, timeout)) != b"":
            if data is None:
                _stop_self()
                timeout = None
        on_closed()

    threading.Thread(target=watch, name="parent-pipe", daemon=True).start()


def _stop_self() -> None:
    # A real signal: its handler runs on the main thread, where a program raises `Stopped`.
    os.kill(os.getpid(), signal.SIGTERM)


def _exit_stopped() -> None:
    os._exit(EXIT_STOPPED)


def _request_parent_death_signal() -> None:
    """Have the kernel send KILL when the parent is gone.

    Precisely: when the *thread* of the parent that started this process is gone. The supervisor
    starts its program on the thread that then waits for it, so that is the same moment.
    """
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")
    # The kernel does not report a parent that died before the call. One that died even before
    # getppid has closed the pipe.
    if os.getppid() != parent:
        _exit_stopped()
