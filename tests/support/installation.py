"""An installation of the service as its own processes, and what a user does with it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from service.settings import Settings

WAIT_SECONDS = 120


def wait_until(what: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    """Return the first true value of `what`, called until there is one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"nothing within {seconds} s")


class Service:
    """API and workers of one installation, each a process; everything ends with the test."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.settings = settings
        self.log = log
        self.parts: list[subprocess.Popen[bytes]] = []
        url = f"http://{settings.host}:{settings.port}"
        self.client = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        given = self.settings.variables | {"HF_HUB_OFFLINE": "1"} | environment
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "service.cli.main", *command],
                env=os.environ | given,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.parts.append(process)
        return process

    def ready(self) -> "Service":
        def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return self.client.get("/readyz").status_code == 200
            assert all(part.poll() is None for part in self.parts), self.log.read_text()
            return False

        wait_until(answers)
        return self

    def stop(self) -> None:
        self.client.close()
        for part in self.parts:
            with contextlib.suppress(ProcessLookupError):
                part.send_signal(signal.SIGTERM)
        for part in self.parts:
            try:
                part.wait(timeout=30)
            except subprocess.TimeoutExpired:
                part.kill()
                part.wait()

    # -- what a user does ----------------------------------------------------------------------

    def upload(self, files: dict[str, bytes], **fields: str) -> str:
        answer = self.client.post("/v1/datasets", data={"name": "d"} | fields, files=files)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def submit(self, **body: Any) -> str:
        answer = self.client.post("/v1/runs", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def run(self, run_id: str) -> dict[str, Any]:
        return self.client.get(f"/v1/runs/{run_id}").json()

    def wait_for(self, run_id: str, *statuses: str) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            run = self.run(run_id)
            return run if run["status"] in statuses else None

        try:
            return wait_until(reached)
        except AssertionError:
            log = self.client.get(f"/v1/runs/{run_id}/logs").text
            raise AssertionError(f"{self.run(run_id)}\n{log}\n{self.log.read_text()}") from None

    def programs(self) -> list[psutil.Process]:
        """The programs of this installation's workers that run now."""
        folder = str(self.settings.jobs_dir)
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(part.startswith(folder) for part in process.cmdline()):
                    found.append(process)
        return found
