"""A supervised program and its supervisor: it ends with it, and stops when it hears nothing.

Standard input is a pipe from the supervisor. It closes when the supervisor's process is gone, and
a thread here then ends the program. That thread does not run while the program is stopped
(SIGSTOP) or native code holds the interpreter's lock, so on Linux the kernel is asked to kill it as
well. A supervisor that is stopped or hangs closes nothing: it writes a byte every so often instead,
and when none comes another worker is about to take the job over.
"""

import ctypes
import os
import select
import signal
import sys
import threading

from service.domain.events import EXIT_STOPPED

_PR_SET_PDEATHSIG = 1


def follow(silence: float | None) -> None:
    """End with the supervisor. Without a byte from it for `silence` seconds, act as on TERM."""
    if sys.platform == "linux":
        _die_with_parent()

    def listen() -> None:
        limit = silence
        while (word := hear(0, limit)) != b"":
            if word is None:
                # A real signal: its handler runs on the main thread, where `Stopped` is raised.
                os.kill(os.getpid(), signal.SIGTERM)
                limit = None
        os._exit(EXIT_STOPPED)

    threading.Thread(target=listen, name="supervisor-pipe", daemon=True).start()


def hear(pipe: int, seconds: float | None) -> bytes | None:
    """What came within that time (None: for ever): bytes; b"" if the pipe closed; None: nothing.

    What lies in the pipe counts, however long ago the time ran out: this process may have been the
    one that was stopped.
    """
    ready, _, _ = select.select([pipe], [], [], seconds)
    if not ready:
        ready, _, _ = select.select([pipe], [], [], 0)
    return os.read(pipe, 1 << 16) if ready else None


def _die_with_parent() -> None:
    """Have the kernel send KILL when the parent is gone.

    To be exact, when the parent's *thread* that started this process is. The supervisor starts
    its program on the thread that then waits for it, so that is the same moment.
    """
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")
    # The kernel does not tell of a parent that was gone before. One that was gone before getppid,
    # too, has closed the pipe.
    if os.getppid() != parent:
        os._exit(EXIT_STOPPED)
