"""An API ends in time when its parent is gone or it is told to stop, whatever its threads do."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest

from service.cli.temporary_server import free_port
from tests.support.installation import wait_until

BUSY = """
import sys, time
from service.store import runs

port, mark = sys.argv[1:]
entered = []

def hang(*_, **__):
    entered.append(None)
    if len(entered) == 40:
        open(mark, "w").close()
    time.sleep(600)

runs.list_runs = hang
from service.cli.main import app
app(["api", "--lifeline", "--port", port])
"""


@pytest.mark.parametrize("how", ["parent gone", signal.SIGTERM])
def test_an_api_with_all_threads_busy_ends(tmp_path, how):
    port, mark = free_port(), tmp_path / "busy"
    environment = os.environ | {"FAIRTUNE_DATA_DIR": str(tmp_path / "data")}
    migrate = [sys.executable, "-m", "service.cli.main", "migrate"]
    subprocess.run(migrate, env=environment, check=True, capture_output=True)
    log = (tmp_path / "log").open("wb")
    api = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(port), str(mark)],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"

        def is_ready() -> bool:
            try:
                return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(is_ready)

        def request() -> None:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{url}/v1/runs", trust_env=False, timeout=120)

        for _ in range(45):
            threading.Thread(target=request, daemon=True).start()
        wait_until(mark.exists)
        began = time.monotonic()
        if how == "parent gone":
            assert api.stdin is not None
            api.stdin.close()
        else:
            api.send_signal(how)
        api.wait(timeout=60)
        assert time.monotonic() - began < 40
    finally:
        api.kill()
        with api:  # waits, then closes its standard input
            pass
        log.close()
