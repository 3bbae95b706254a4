"""Exit status 0 while a container's process is alive, else 1.

`python -m service.ops.container_health api` or `worker`.

A container engine asks twice a minute, so nothing outside the standard library is imported here.
The API is alive if it answers /healthz. A worker listens on no port: its sweep touches a file in
the data directory after each round, whether or not the database answered. Liveness checks neither
database nor broker, since a restart of the process would not bring them back.
"""

import contextlib
import os
import sys
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

FILE = "worker.alive"
PATIENCE_SECONDS = 120.0
"""Added to the pause between two sweeps: a database that hangs delays one by up to a minute."""
_ANSWER_SECONDS = 5.0


def beat(data_dir: Path) -> None:
    """Record that the worker with this data directory makes progress. Never raises OSError."""
    with contextlib.suppress(OSError):  # a disk that takes nothing is no reason to stop sweeping
        (data_dir / FILE).touch()


def worker_is_alive(data_dir: Path, sweep_seconds: float) -> bool:
    try:
        age = time.time() - (data_dir / FILE).stat().st_mtime
    except FileNotFoundError:  # it has not begun to sweep
        return False
    return age <= PATIENCE_SECONDS + sweep_seconds


def api_is_alive(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _main(process: str) -> bool:
    # Not service.settings, which takes most of a second to import. The defaults are the same.
    variable = os.environ.get
    if process == "api":
        return api_is_alive(int(variable("FAIRTUNE_PORT", "8000")))
    data_dir = Path(variable("FAIRTUNE_DATA_DIR", ".fairtune"))
    return worker_is_alive(data_dir, float(variable("FAIRTUNE_SWEEP_SECONDS", "10")))


if __name__ == "__main__":
    if sys.argv[1:] not in (["api"], ["worker"]):
        sys.exit("say which: python -m service.ops.container_health api|worker")
    sys.exit(0 if _main(sys.argv[1]) else 1)
