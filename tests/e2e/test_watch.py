"""`fairtune runs watch` and `logs` as processes: without a terminal, on one, and over a restart."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from tests.support.installation import Service, wait_until
from tests.support.tiny_runs import TINY, sample

SPEC = TINY | {
    "fairness": {"select": "best_f1_within_caps"},
    "training": TINY["training"] | {"num_train_epochs": 2},
}


@pytest.fixture
def installation(make_settings, tmp_path):
    """An API without a worker, so that a run stays queued until a test starts one."""
    running = Service(make_settings(servers=False), tmp_path / "service.log")
    try:
        running.start("api")
        yield running.ready()
    finally:
        running.stop()


def command(installation, *arguments, **options):
    url = str(installation.client.base_url).rstrip("/")
    return subprocess.Popen(
        [sys.executable, "-m", "service.cli.main", *arguments, "--server", url],
        **options,
    )


class Terminal:
    """A command on a pseudo-terminal, and everything that it has written there."""

    def __init__(self, installation, *arguments):
        self.master, slave = pty.openpty()
        self.text = ""
        environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
        self.process = command(
            installation,
            *arguments,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)

    def read(self) -> str:
        while select.select([self.master], [], [], 0.1)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # closed by the command's end
                break
            self.text += data.decode(errors="replace")
        return self.text

    def wait(self) -> int:
        wait_until(lambda: self.read() and self.process.poll() is not None)
        self.read()
        os.close(self.master)
        return self.process.returncode


def test_watching_survives_a_restart_and_ends_with_the_report(installation, tmp_path):
    dataset = installation.upload(sample())
    run_id = installation.submit(dataset_id=dataset, **SPEC)
    errors = (tmp_path / "stderr").open("w+")
    watching = command(
        installation, "runs", "watch", run_id, stdout=subprocess.PIPE, stderr=errors, text=True
    )
    following = command(
        installation, "runs", "logs", "-f", run_id, stdout=subprocess.PIPE, text=True
    )
    left = Terminal(installation, "runs", "watch", run_id)
    wait_until(lambda: "queued at position 1" in left.read())
    left.process.send_signal(signal.SIGINT)
    assert left.wait() == 130
    assert f"{run_id} is queued and continues; to follow it again: " in left.text
    assert "Traceback" not in left.text
    assert "\x1b[?25h" in left.text  # the cursor is shown again

    live = Terminal(installation, "runs", "watch", run_id)
    wait_until(lambda: "queued at position 1" in live.read())
    (api,) = installation.parts
    api.kill()
    api.wait()
    installation.parts.clear()
    wait_until(lambda: "does not answer" in (tmp_path / "stderr").read_text())
    wait_until(lambda: "does not answer" in live.read())
    installation.start("api")
    installation.ready()
    installation.start("worker")

    output, _ = watching.communicate(timeout=240)
    assert watching.returncode == 0, (output, (tmp_path / "stderr").read_text())
    assert "the server answers again" in (tmp_path / "stderr").read_text()
    errors.close()
    events, _, report = output.partition("\nBias report")
    lines = events.splitlines()
    stored = installation.client.get(f"/v1/runs/{run_id}/events", params={"limit": 1000}).json()
    assert len(lines) == len(stored["data"])
    assert lines[0].endswith("queued")
    assert lines[-1].endswith("succeeded")
    assert any("FPR lgbtq" in line for line in lines)
    assert "Verdicts on caps" in report

    assert live.wait() == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", live.text)
    for part in ("step 12 of 12", "loss   ", "FPR lgbtq ≤ 0.4", "✓ training", "Bias report"):
        assert part in shown

    log, _ = following.communicate(timeout=60)
    assert following.returncode == 0
    assert log == installation.client.get(f"/v1/runs/{run_id}/logs").text
    tail = command(
        installation, "runs", "logs", run_id, "--tail", "2", stdout=subprocess.PIPE, text=True
    )
    assert tail.communicate(timeout=60)[0] == "".join(log.splitlines(keepends=True)[-2:])


def test_a_run_that_did_not_succeed_has_its_own_exit_status(installation):
    dataset = installation.upload(sample())
    run_id = installation.submit(dataset_id=dataset, **SPEC)
    began = time.monotonic()
    timed = command(
        installation, "runs", "watch", run_id, "--timeout", "1", stderr=subprocess.PIPE, text=True
    )
    assert "it continues" in timed.communicate(timeout=60)[1]
    assert timed.returncode == 7
    assert time.monotonic() - began > 1
    installation.client.post(f"/v1/runs/{run_id}/cancel")
    cancelled = command(
        installation, "runs", "watch", run_id, "--json", stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    output, errors = cancelled.communicate(timeout=60)
    assert cancelled.returncode == 3
    assert errors == f"{run_id} was cancelled\n"
    assert [line.startswith('{"id": ') for line in output.splitlines()] == [True, True]
