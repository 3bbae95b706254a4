"""A program and its supervisor: stop signals, the pipe between them, and who outlives whom."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.domain.events import EXIT_DONE, EXIT_STOPPED
from service.ops.parent_pipe import read_pipe
from tests.support.train_jobs import environment, events, make_job, of_type, spec
from worker.runtime.events import Stopped, StopSignal

PROGRAM = """
import time
from worker.runtime.launch import launch

def main(program):
    with program.stop.deferred():
        program.reporter.log("at work")
        while not program.stop.requested and not (program.directory / "enough").exists():
            time.sleep(0.01)
    program.stop.check()

launch(main, "waits until it is told to stop, or that it is enough")
"""


@pytest.fixture
def job(tmp_path):
    return make_job(tmp_path / "job", tmp_path, spec())


def command(job, *arguments):
    return [sys.executable, "-c", PROGRAM, str(job), *arguments]


@contextlib.contextmanager
def program(job, *arguments):
    with subprocess.Popen(
        command(job, *arguments), env=environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as started:
        try:
            wait_until(lambda: "at work" in read(job / "events.jsonl"), started.poll)
            yield started
        finally:
            started.kill()


def read(path):
    return path.read_text() if path.exists() else ""


def wait_until(true, ended=lambda: None):
    until = time.monotonic() + 30
    while not true():
        assert ended() is None
        assert time.monotonic() < until
        time.sleep(0.005)


def beats(started, seconds):
    """Be a supervisor that is alive for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        os.write(started.stdin.fileno(), b".")
        time.sleep(0.05)


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has PR_SET_PDEATHSIG")
def test_a_program_that_stands_still_dies_with_its_supervisor(job):
    supervisor = """
import subprocess, sys
program = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True)
print(program.pid, flush=True)
program.wait()
"""
    with subprocess.Popen(
        [sys.executable, "-c", supervisor, *command(job, "--supervised=60")],
        env=environment(),
        stdout=subprocess.PIPE,
    ) as parent:
        pid = int(parent.stdout.readline())
        watch = os.pidfd_open(pid)
        try:
            wait_until(lambda: "at work" in read(job / "events.jsonl"), parent.poll)
            os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: is_stopped(pid))
            parent.kill()
            ended, _, _ = select.select([watch], [], [], 10)
            assert ended
        finally:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(watch, signal.SIGKILL)
            os.close(watch)


def test_a_supervisor_that_says_nothing_is_taken_for_gone(job):
    with program(job, "--supervised=0.3") as started:
        assert started.wait(timeout=10) == EXIT_STOPPED


def test_a_supervisor_that_is_heard_is_worked_for(job):
    with program(job, "--supervised=0.5") as started:
        beats(started, 1.5)
        (job / "enough").touch()
        assert started.wait(timeout=10) == EXIT_DONE


def test_silence_is_not_minded_where_no_limit_was_given(job):
    with program(job, "--supervised") as started:
        with pytest.raises(subprocess.TimeoutExpired):
            started.wait(timeout=0.5)
        started.stdin.close()
        assert started.wait(timeout=10) == EXIT_STOPPED


def test_what_was_said_while_the_program_stood_still_was_heard(job):
    with program(job, "--supervised=0.5") as started:
        started.send_signal(signal.SIGSTOP)
        wait_until(lambda: is_stopped(started.pid))
        beats(started, 1.0)
        started.send_signal(signal.SIGCONT)
        beats(started, 1.0)
        (job / "enough").touch()
        assert started.wait(timeout=10) == EXIT_DONE


def test_a_pipe_can_say_something_nothing_or_be_closed():
    read_end, write_end = os.pipe()
    assert read_pipe(read_end, 0.01) is None
    os.write(write_end, b"..")
    assert read_pipe(read_end, 0.01) == b".."
    os.write(write_end, b".")
    os.close(write_end)
    assert read_pipe(read_end, None) == b"."
    assert read_pipe(read_end, None) == b""
    os.close(read_end)


def test_a_pipe_is_looked_at_once_more_when_the_time_is_up(monkeypatch):
    """Where a signal breaks the wait, the time may have run out before anything was looked at."""
    read_end, write_end = os.pipe()
    os.write(write_end, b".")
    waited = []

    def interrupted(readers, _writers, _errors, seconds):
        waited.append(seconds)
        return (readers if seconds == 0 else []), [], []

    monkeypatch.setattr(select, "select", interrupted)
    assert read_pipe(read_end, 60) == b"."
    assert waited == [60, 0]
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("given", ["0", "-1", "nan", "soon"])
def test_a_limit_that_is_none_is_refused(job, given):
    refused = subprocess.run(
        command(job, f"--supervised={given}"),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert refused.returncode == 2
    assert b"--supervised" in refused.stderr
    assert not (job / "events.jsonl").exists()


def test_term_stops_a_program_and_by_hand_it_says_so(job):
    with program(job) as started:
        started.terminate()
        assert started.wait(timeout=10) == EXIT_STOPPED
        assert started.stderr.read() == b"stopped\n"
    assert not of_type(events(job), "failure")


def test_term_outside_of_the_work_is_only_noted():
    stop = StopSignal()
    stop.on_signal(signal.SIGTERM, None)
    assert stop.requested
    with pytest.raises(Stopped), stop.immediate():
        raise AssertionError("the work began")


def test_term_takes_effect_at_once_but_where_it_is_deferred():
    stop = StopSignal()
    with stop.immediate():
        with stop.deferred():
            stop.on_signal(signal.SIGTERM, None)
        with pytest.raises(Stopped):
            stop.on_signal(signal.SIGTERM, None)
