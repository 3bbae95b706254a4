"""A child process that must not outlive its parent: it stops when its standard input closes."""

import os
import signal
import threading

OPTION = "--lifeline"


def hold() -> None:
    """Tell this process to stop (TERM to itself) when standard input, a pipe of its parent's, ends.

    The kernel closes the pipe however the parent dies, SIGKILL included.
    """

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
