"""The end of a process at a time, whatever its threads do."""

import os
import signal
import threading
import time

_FALLBACK_SECONDS = 2.0


def exit_within(seconds: float) -> None:
    """End this process after `seconds`, if it has not ended by then; the first call counts.

    The interpreter waits for its threads, and a thread may compute or wait for minutes. If native
    code holds the interpreter's lock even then, the kernel ends the process: by an alarm, of which
    nobody catches the signal.
    """
    if signal.getitimer(signal.ITIMER_REAL)[0]:
        return
    signal.setitimer(signal.ITIMER_REAL, seconds + _FALLBACK_SECONDS)

    def end() -> None:
        time.sleep(seconds)
        os._exit(0)

    threading.Thread(target=end, name="exit-deadline", daemon=True).start()
