"""The supervisor with a program that does what each test says, in a tenth of a second."""

import hashlib
import json
import textwrap
import threading

import pytest
import structlog

from service.domain.errors import Unavailable
from service.domain.states import FailureReason, JobStatus
from service.queue import celery_app
from service.store import job_control, jobs, program_events
from service.store.jobs import Fenced
from service.store.runs import checkpoints, get_run
from service.store.tables import Dataset, Run
from tests.support.attempts import PROGRAM, House, in_background
from tests.support.installation import wait_until
from tests.support.log_lines import caught
from worker import tasks
from worker.supervision import supervisor as module
from worker.supervision.job_preparation import JobPreparation


@pytest.fixture
def house(context, run_id, tmp_path, monkeypatch) -> House:
    return House(context, run_id, tmp_path, monkeypatch)


def test_a_program_that_is_done_succeeds_with_all_that_it_said(house, client):
    house.play('say("phase", phase="training")\nfor n in range(300): say("log", message=str(n))')
    assert house.job.status == "succeeded"
    assert [event["message"] for event in house.events(client, "log")] == [
        str(number) for number in range(300)
    ]


SHRINKING = """
    say("phase", phase="training")
    rows = job["train_batch_size"] or job["spec"]["training"]["per_device_train_batch_size"]
    log(f"rows {rows} from {job['resume_from']}")
    if rows == 4:
        save(5)
    if rows > 1:
        fail("out_of_memory", batch="train")
"""


def test_out_of_memory_halves_the_micro_batch_until_it_fits(house, client):
    house.play(SHRINKING)
    job = house.job
    assert (job.status, job.attempts, job.train_batch_size) == ("succeeded", 1, 1)
    said = [event["detail"] for event in house.events(client, "warning")]
    assert len(said) == 2
    assert "Out of memory with 4 rows" in said[0]
    assert "at most 1024 tokens; the effective batch remains 16" in said[0]
    assert "at most 512 tokens" in said[1]
    # In a fresh process each time, from the newest checkpoint that is there.
    assert client.get(f"/v1/runs/{house.run_id}/logs").text.splitlines() == [
        "rows 4 from None",
        "rows 2 from checkpoints/checkpoint-5",
        "rows 1 from checkpoints/checkpoint-5",
    ]
    shown = client.get(f"/v1/runs/{house.run_id}").json()
    assert (shown["train_batch_size"], shown["eval_batch_size"]) == (1, None)


def test_out_of_memory_at_one_row_fails_with_advice(house, client):
    house.play('fail("out_of_memory", batch="train")')
    run = client.get(f"/v1/runs/{house.run_id}").json()
    assert (run["status"], run["failure"]["reason"]) == ("failed", "out_of_memory")
    assert "max_seq_length" in run["failure"]["advice"]
    assert run["train_batch_size"] == 1


def test_out_of_memory_in_evaluation_leaves_training_as_it_is(house):
    house.play('if job["eval_batch_size"] != 1: fail("out_of_memory", batch="eval")')
    job = house.job
    assert (job.status, job.train_batch_size, job.eval_batch_size) == ("succeeded", None, 1)


def test_out_of_memory_while_loading_is_nothing_that_a_batch_could_mend(house):
    house.play('fail("out_of_memory")')
    assert (house.job.status, house.job.train_batch_size) == ("failed", None)


def test_a_kill_by_the_kernel_for_memory_is_out_of_memory(house, monkeypatch):
    kills = iter(range(100))
    monkeypatch.setattr(module, "oom_kills", lambda: next(kills))
    house.play(
        """
        say("phase", phase="training")
        if job["train_batch_size"] != 2:
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert (house.job.status, house.job.train_batch_size) == ("succeeded", 2)


def test_the_smaller_batch_is_kept_by_the_next_attempt(house):
    house.play('if job["train_batch_size"] is None: fail("out_of_memory", batch="train")\n1/0')
    assert (house.job.status, house.job.train_batch_size) == ("queued", 2)
    house.play('if job["train_batch_size"] is None: fail("out_of_memory", batch="train")')
    assert (house.job.status, house.job.train_batch_size) == ("succeeded", 2)


CRASHES = [
    ('log("the last word"); os.kill(os.getpid(), signal.SIGSEGV)', "crashed", "signal 11"),
    ('log("the last word"); sys.exit(1)', "crashed", "exit status 1"),
    ('log("the last word"); fail("crashed")', "crashed", "it did not work"),
    ('fail("no_space")', "no_space", "it did not work"),
    ("sys.exit(5)", "no_space", "disk"),
]


@pytest.mark.parametrize(("program", "reason", "detail"), CRASHES)
def test_what_may_pass_is_tried_three_times(house, client, program, reason, detail):
    for _ in range(2):
        house.play(program)
        assert house.job.status == "queued"
    house.play(program)
    job = house.job
    assert (job.status, job.failure_reason, job.attempts) == ("failed", reason, 3)
    assert detail in job.failure_detail
    if "last word" in program and "fail" not in program:
        assert "the last word" in job.failure_detail
    queued = [event for event in house.events(client, "status") if event["status"] == "queued"]
    assert [event.get("reason") for event in queued] == [None, reason, reason]


INTERNAL = """
    say("phase", phase="{phase}")
    say("progress", step={step}, total_steps=9, epoch=0)
    say("failure", reason="internal", detail="Unexpected {error}: at 0x{address:x}, file {address}")
    sys.exit(3)
"""


def internal(address, phase="training", step=1, error="KeyError"):
    return INTERNAL.format(address=address, phase=phase, step=step, error=error)


def test_what_nobody_foresaw_is_not_tried_again_once_it_repeats(house, client):
    house.play(internal(7))
    assert house.job.status == "queued"
    house.play(internal(8))  # numbers that differ by chance do not make it another failure
    job = house.job
    assert (job.status, job.failure_reason, job.attempts) == ("failed", "internal", 2)
    # A user's retry begins anew: the fault may have been mended.
    client.post(f"/v1/runs/{house.run_id}/retry")
    house.play(internal(9))
    assert house.job.status == "queued"
    house.play(internal(9))
    assert house.job.status == "failed"


@pytest.mark.parametrize("other", [{"phase": "evaluating"}, {"step": 3}, {"error": "ValueError"}])
def test_another_failure_that_nobody_foresaw_is_tried_again(house, other):
    for program in (internal(1), internal(1, **other)):
        house.play(program)
        assert house.job.status == "queued"
    house.play(internal(1))
    assert (house.job.status, house.job.attempts) == ("failed", 3)


def test_a_crash_in_between_lets_it_be_tried_again(house):
    for program in (internal(1), "sys.exit(1)"):
        house.play(program)
        assert house.job.status == "queued"
    house.play(internal(1))
    assert (house.job.status, house.job.attempts) == ("failed", 3)


def test_a_checkpoint_at_a_higher_step_gives_new_attempts(house):
    for step in (1, 2, 3, 4):
        house.play(f"save({step}); sys.exit(1)")
    assert (house.job.status, house.job.attempts_since_checkpoint) == ("queued", 0)
    for _ in range(3):
        house.play("sys.exit(1)")
    assert house.job.status == "failed"


STEP = 'say("phase", phase="training"); say("progress", step=1, total_steps=9, epoch=0'


@pytest.mark.parametrize(
    ("program", "limit"),
    [("", "startup"), (f"{STEP})", "step"), (f"{STEP}, saving=True)", "checkpoint")],
)
def test_a_program_that_hangs_is_killed_and_says_where_it_stood(house, client, program, limit):
    program = f"import faulthandler\nfaulthandler.register(signal.SIGUSR1)\n{program}\n"
    program += 'log("the last word")\nwhile True: signal.pause()'
    house.play(program, **{f"{limit}_limit_seconds": 0.5})
    (event,) = [one for one in house.events(client, "status") if "reason" in one]
    assert event["reason"] == "stalled"
    assert f"FAIRTUNE_{limit.upper()}_LIMIT_SECONDS" in event["detail"]
    assert "the last word" in event["detail"]
    assert "most recent call first" in client.get(f"/v1/runs/{house.run_id}/logs").text


def test_a_first_term_waits_for_the_checkpoint_and_costs_no_attempt(house):
    attempt = in_background(house.attempt("train_forever()"))
    wait_until(lambda: house.job.step == 1)
    house.shutdown.request()
    attempt.join()
    assert (house.job.status, house.job.attempts) == ("queued", 0)
    with house.context.database.read() as session:
        assert [one.step for one in checkpoints(session, house.run_id)] == [7]


DEAF = 'signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay("phase", phase="training")\n'
DEAF += 'say("progress", step=1, total_steps=9, epoch=0)\nwhile True: signal.pause()'


def test_a_second_term_kills(house):
    attempt = in_background(house.attempt(DEAF))
    wait_until(lambda: house.job.step == 1)
    house.shutdown.request()
    house.shutdown.request()
    attempt.join(timeout=10)
    assert not attempt.is_alive()
    assert (house.job.status, house.job.attempts) == ("queued", 0)


def test_the_end_of_the_grace_period_kills(house):
    attempt = in_background(house.attempt(DEAF, stop_grace_seconds=0.3))
    wait_until(lambda: house.job.step == 1)
    with house.context.database.write() as session:
        job_control.cancel(session, get_run(session, house.run_id)[1])
    attempt.join(timeout=20)
    assert house.job.status == "cancelled"


class Disk:
    """An artifact store that fails until it is mended."""

    def __init__(self, monkeypatch, error, name="put_file") -> None:
        self.broken = threading.Event()
        self.refused = 0
        whole = getattr(module.ArtifactStore, name)

        def put_file(store, *arguments, **named):
            if self.broken.is_set():
                self.refused += 1
                raise error
            return whole(store, *arguments, **named)

        monkeypatch.setattr(module.ArtifactStore, name, put_file)


def hang(monkeypatch, name):
    """From now on that function of the store's does not come back. Returns what tells so."""
    called, never = threading.Event(), threading.Event()

    def hangs(*_, **__):
        called.set()
        never.wait()

    monkeypatch.setattr(module.ArtifactStore, name, hangs)
    return called


@pytest.mark.parametrize("how", ["cancel", "shutdown", "patience", "fenced"])
@pytest.mark.parametrize("name", ["put_file", "fetch"])
def test_a_store_that_hangs_does_not_keep_the_job(house, monkeypatch, name, how):
    called = hang(monkeypatch, name)
    patience = 0.5 if how == "patience" else 3600
    supervisor = house.attempt("save(2)", stop_grace_seconds=0.3, storage_patience_seconds=patience)
    attempt = in_background(supervisor)
    assert called.wait(timeout=20)
    with house.context.database.write() as session:
        job = get_run(session, house.run_id)[1]
        if how == "cancel":
            job_control.cancel(session, job)
        elif how == "fenced":
            lost = FailureReason.WORKER_LOST
            jobs.return_to_queue(session, job, job.token, lost, "", free=False)
    if how == "shutdown":
        house.shutdown.request()
    attempt.join(timeout=20)
    assert not attempt.is_alive()
    assert house.job.status == ("cancelled" if how == "cancel" else "queued")
    assert house.job.attempts == (0 if how in ("cancel", "shutdown") else 1)


@pytest.mark.parametrize("stop", ["pause", "shutdown"])
def test_told_to_stop_while_memory_runs_out_it_keeps_the_smaller_batch(house, stop):
    program = """
        say("phase", phase="training")
        signal.signal(signal.SIGTERM, lambda *_: None)
        say("progress", step=1, total_steps=9, epoch=0)
        signal.pause()
        fail("out_of_memory", batch="train")
    """
    attempt = in_background(house.attempt(program))
    wait_until(lambda: house.job.step == 1)
    if stop == "pause":
        with house.context.database.write() as session:
            job_control.pause(session, get_run(session, house.run_id)[1])
    else:
        house.shutdown.request()
    attempt.join(timeout=20)
    job = house.job
    assert job.status == ("paused" if stop == "pause" else "queued")
    assert (job.train_batch_size, job.attempts) == (2, 0)


def test_one_that_stops_though_nobody_told_it_to_is_an_attempt(house):
    """Else something that stops it each time would have it run for ever."""
    for _ in range(3):
        house.play("sys.exit(4)")
    assert (house.job.status, house.job.failure_reason) == ("failed", "crashed")


def test_a_cancel_before_the_program_has_begun_starts_none(house, monkeypatch):
    disk = Disk(monkeypatch, OSError(5, "I/O"), "fetch")
    disk.broken.set()
    supervisor = house.attempt('log("started")')
    attempt = in_background(supervisor)
    wait_until(lambda: disk.refused > 3)
    with house.context.database.write() as session:
        job_control.cancel(session, get_run(session, house.run_id)[1])
    wait_until(lambda: supervisor.lease.request == "cancel")
    disk.broken.clear()
    attempt.join(timeout=20)
    assert house.job.status == "cancelled"
    assert house.log == ""


def test_a_pause_taken_back_leaves_the_next_start_alone(house):
    """The program is told to stop for a pause, which is withdrawn; then it runs out of memory."""
    program = """
        say("phase", phase="training")
        if job["train_batch_size"] is None:
            signal.signal(signal.SIGTERM, lambda *_: None)
            say("progress", step=1, total_steps=9, epoch=0)
            signal.pause()
            while not (directory / "resumed").exists():
                time.sleep(0.01)
            fail("out_of_memory", batch="train")
    """
    supervisor = house.attempt(program)
    attempt = in_background(supervisor)
    wait_until(lambda: house.job.step == 1)
    with house.context.database.write() as session:
        job_control.pause(session, get_run(session, house.run_id)[1])
    wait_until(lambda: supervisor.lease.request == "pause")
    with house.context.database.write() as session:
        assert not job_control.resume(session, get_run(session, house.run_id)[1])
    wait_until(lambda: supervisor.lease.request is None)
    (supervisor.directory / "resumed").touch()
    attempt.join(timeout=20)
    # Told to stop, it gave the job back at no cost; or it was not told any more, and went on.
    job = house.job
    assert job.train_batch_size == 2
    assert (job.status, job.attempts) in (("queued", 0), ("succeeded", 1))


def test_control_characters_in_a_log_do_no_harm(house):
    house.play('sys.stdout.write("a\\0b\\x1b[31m\\n"); sys.stdout.flush(); sys.exit(1)')
    assert house.job.status == "queued"


def test_a_program_that_cannot_be_started_is_an_attempt(house, monkeypatch):
    def fork(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("worker.supervision.program_process.subprocess.Popen", fork)
    for _ in range(3):
        house.play("")
    assert (house.job.status, house.job.failure_reason) == ("failed", "crashed")
    assert "could not be started" in house.job.failure_detail


def test_memory_that_the_kernel_took_while_validating_shrinks_that_too(house, monkeypatch):
    kills = iter(range(100))
    monkeypatch.setattr(module, "oom_kills", lambda: next(kills))
    house.play(
        """
        say("phase", phase="training")
        if job["eval_batch_size"] != 2:
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    job = house.job
    assert (job.status, job.train_batch_size, job.eval_batch_size) == ("succeeded", 1, 2)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(5, "I/O")])
def test_a_store_that_is_away_is_waited_for_and_nothing_is_lost(house, client, monkeypatch, error):
    disk = Disk(monkeypatch, error)
    disk.broken.set()
    attempt = in_background(
        house.attempt('save(2)\nfor n in range(9): say("log", message=str(n))\nsave(4)')
    )
    wait_until(lambda: disk.refused > 3)
    assert house.job.status == "running"
    assert house.events(client, "log") == []  # in order: the checkpoint before them is not stored
    disk.broken.clear()
    attempt.join()
    assert house.job.status == "succeeded"
    assert [event["message"] for event in house.events(client, "log")] == list("012345678")
    assert [event["step"] for event in house.events(client, "checkpoint")] == [2, 4]


@pytest.mark.parametrize(("number", "reason"), [(28, "no_space"), (5, "internal")])
def test_a_store_that_stays_away_gives_the_job_back_in_the_end(house, monkeypatch, number, reason):
    Disk(monkeypatch, OSError(number, "no")).broken.set()
    for _ in range(3):
        house.play("save(2)", storage_patience_seconds=0.3)
    assert (house.job.status, house.job.failure_reason) == ("failed", reason)


def test_a_cancel_is_heard_while_the_store_is_away(house, monkeypatch):
    disk = Disk(monkeypatch, OSError(5, "I/O"))
    disk.broken.set()
    attempt = in_background(house.attempt("save(2)", stop_grace_seconds=0.3))
    wait_until(lambda: disk.refused > 3)
    with house.context.database.write() as session:
        job_control.cancel(session, get_run(session, house.run_id)[1])
    attempt.join(timeout=20)
    assert house.job.status == "cancelled"


def test_a_worker_told_to_stop_while_the_store_is_away_gives_its_job_back(house, monkeypatch):
    disk = Disk(monkeypatch, OSError(5, "I/O"))
    disk.broken.set()
    attempt = in_background(house.attempt("save(2)", stop_grace_seconds=0.3))
    wait_until(lambda: disk.refused > 3)
    house.shutdown.request()
    attempt.join(timeout=20)
    assert (house.job.status, house.job.attempts) == ("queued", 0)


WRONG = """
    place = directory / "checkpoints/checkpoint-2"
    place.mkdir(parents=True)
    (place / "whole.bin").write_bytes(b"whole")
    (place / "wrong.bin").write_bytes(b"something else")
    files = [
        {"path": name, "size": 5, "sha256": hashlib.sha256(b"whole").hexdigest()}
        for name in ("whole.bin", NAME)
    ]
    say("checkpoint", step=2, epoch=0, path="checkpoints/checkpoint-2",
        files=files, metrics={}, best_step=None)
"""


@pytest.mark.parametrize("name", ["wrong.bin", "missing.bin"])
def test_a_file_that_is_not_what_was_announced_is_the_programs_fault(house, name):
    house.play(WRONG.replace("NAME", repr(name)))
    assert (house.job.status, house.job.failure_reason) == ("failed", "internal")
    # What was stored before that was noticed is no file of the run's: it is gone again.
    assert list((house.context.store.root / "runs").rglob("*.bin")) == []


def test_a_broken_checkpoint_is_passed_over_for_the_one_before(house, client):
    more = {"training": {"save_total_limit": 2}}
    house.run_id = client.post(f"/v1/runs/{house.run_id}/clone", json=more).json()["id"]
    house.play("save(2); save(4); sys.exit(1)")
    (newest,) = house.context.store.root.rglob("checkpoint-4/adapter.bin")
    newest.write_bytes(b"weights")
    house.play('log(str(job["resume_from"])); say("rewound", step=2); save(4)')
    assert house.job.status == "succeeded"
    (warning,) = house.events(client, "warning")
    assert warning["code"] == "checkpoint_broken"
    assert "step 4" in warning["detail"]
    log = client.get(f"/v1/runs/{house.run_id}/logs").text
    assert log.splitlines()[-1] == "checkpoints/checkpoint-2"
    checkpoints = client.get(f"/v1/runs/{house.run_id}/checkpoints").json()["data"]
    assert [checkpoint["step"] for checkpoint in checkpoints] == [2, 4]
    for checkpoint in checkpoints:
        (file,) = checkpoint["files"]
        url = f"/v1/runs/{house.run_id}/checkpoints/{checkpoint['step']}/download?path=adapter.bin"
        assert hashlib.sha256(client.get(url).content).hexdigest() == file["sha256"]


def test_base_scores_of_an_earlier_attempt_are_laid_out_for_the_next(house):
    house.play(
        """
        import hashlib
        place = directory / "evaluations"
        place.mkdir()
        (place / "base-test.parquet").write_bytes(b"scores")
        file = {"path": "evaluations/base-test.parquet", "size": 6,
                "sha256": hashlib.sha256(b"scores").hexdigest()}
        say("evaluation", target="base", step=None, split="test", template="t", metrics={},
            predictions=file)
        sys.exit(1)
        """
    )
    house.play('assert (directory / "evaluations/base-test.parquet").read_bytes() == b"scores"')
    assert house.job.status == "succeeded"


def test_what_was_found_in_the_dataset_is_laid_out_for_the_report(house):
    found = [{"code": "shared_rows", "detail": "Three rows stand in two splits.", "count": 3}]
    with house.context.database.write() as session:
        run = session.get_one(Run, house.run_id)
        session.get_one(Dataset, run.dataset_id).warnings = found
    house.play(f'assert job["dataset_warnings"] == {found!r}')
    assert house.job.status == "succeeded"


def test_a_job_that_went_to_another_is_left_alone(house):
    attempt = house.attempt("train_forever()", lease_seconds=0.4)
    running = in_background(attempt)
    wait_until(lambda: house.job.step == 1)
    with house.context.database.write() as session:
        job = jobs.lock_for_worker(session, attempt.claim)
        lost = FailureReason.WORKER_LOST
        jobs.return_to_queue(session, job, attempt.claim.token, lost, "", free=False)
    house.attempt("save(3)").run()
    running.join(timeout=20)
    assert house.job.status == JobStatus.SUCCEEDED
    runs = house.context.store.root / "runs" / house.run_id / house.job.id
    stored = {path.relative_to(runs).parts[0] for path in runs.rglob("*") if path.is_file()}
    assert stored == {"2"}


def test_a_program_hears_from_its_supervisor(house):
    house.play(
        """
        import select
        while not select.select([0], [], [], 0)[0]:
            time.sleep(0.01)
        assert os.read(0, 1) == b"."
        """
    )
    assert house.job.status == "succeeded"


def test_the_process_is_found_by_its_job_directory(house):
    house.play(
        """
        log(json.dumps(sys.argv))
        assert job["job_id"] in sys.argv[1]
        """
    )
    assert house.job.status == "succeeded"


def test_signals_of_the_workers_terminal_do_not_reach_the_program(house):
    house.play("assert os.getsid(0) == os.getpid()")
    assert house.job.status == "succeeded"


def test_going_back_leaves_alone_what_the_program_has_saved_since(house, client):
    """The line that says so may be recorded long after the step was saved anew."""
    more = {"training": {"save_total_limit": 2}}
    house.run_id = client.post(f"/v1/runs/{house.run_id}/clone", json=more).json()["id"]
    house.play("save(2); save(4); sys.exit(1)")
    (newest,) = house.context.store.root.rglob("checkpoint-4/adapter.bin")
    newest.write_bytes(b"weights")
    attempt = house.attempt(
        """
        place = directory / "checkpoints/checkpoint-4"
        place.mkdir()
        (place / "adapter.bin").write_bytes(b"weights" * 4)
        say("rewound", step=2)
        while not (directory / "go").exists():
            time.sleep(0.01)
        assert (place / "adapter.bin").exists()
        """
    )
    running = in_background(attempt)
    wait_until(lambda: house.events(client, "rewound"))
    (attempt.directory / "go").touch()
    running.join(timeout=20)
    assert house.job.status == "succeeded"


def test_of_a_log_in_json_the_last_lines_are_told_in_plain_words(house, client):
    house.play(
        """
        line = {"timestamp": "2026", "event": "failed", "run_id": "run_1", "token": 1}
        log(json.dumps(line | {"event": "loading"}))
        log(json.dumps(line | {"exception": "Traceback\\n  File x\\nValueError: too long"}))
        log("{a native library")
        sys.exit(1)
        """
    )
    (event,) = [one for one in house.events(client, "status") if "reason" in one]
    told = "its last lines: loading | failed: ValueError: too long | {a native library"
    assert event["detail"].endswith(told)


LINGERING = """
    (directory / "training.log").write_text((directory / "job.json").read_text())
    say("phase", phase="training")
    while not pathlib.Path(GO).exists(): time.sleep(0.01)
"""


def test_every_thread_of_a_worker_logs_with_the_ids_of_its_job(
    house, client, context, monkeypatch, tmp_path
):
    """The lease and the shipping fail once, each on its own thread; what is watched has another."""
    failed = set()

    def failing_once(action):
        def act(*arguments):
            if action not in failed:
                failed.add(action)
                raise Unavailable("away")
            return action(*arguments)

        return act

    prepare_directory = JobPreparation.prepare

    def prepare(*arguments):
        structlog.get_logger("worker.here").info("laying out")
        return prepare_directory(*arguments)

    monkeypatch.setattr(jobs, "renew", failing_once(jobs.renew))
    monkeypatch.setattr(program_events, "ship", failing_once(program_events.ship))
    monkeypatch.setattr(JobPreparation, "prepare", prepare)
    monkeypatch.setattr(tasks, "Database", lambda _: context.database)
    go = tmp_path / "go"
    program = PROGRAM + textwrap.dedent(LINGERING).replace("GO", repr(str(go)))
    (tmp_path / "program.py").write_text(program)
    app, _ = tasks.make_worker(house.settings)
    execute = app.tasks[celery_app.EXECUTE]
    with caught("worker") as lines:
        attempt = threading.Thread(target=execute)
        attempt.start()
        wait_until(lambda: lines.all("lease not renewed") and lines.all("not shipped yet"))
        go.touch()
        attempt.join()
    assert house.job.status == "succeeded"
    events = ["attempt started", "laying out", "lease not renewed", "not shipped yet"]
    assert {line["event"] for line in lines.all()} >= {*events, "attempt ended"}
    job = house.job
    for line in lines.all():
        assert (line["part"], line["run_id"], line["job_id"]) == ("worker", house.run_id, job.id)
        assert (line["token"], line["request_id"]) == (1, job.request_id)
    given = json.loads(client.get(f"/v1/runs/{house.run_id}/logs").text)
    assert given["request_id"] == job.request_id


def stored(house):
    root = house.context.store.root
    return {p.relative_to(root).as_posix() for p in (root / "runs").rglob("*") if p.is_file()}


def named(house):
    with house.context.database.read() as session:
        return program_events.keys_of(session, house.run_id)


def test_nothing_is_left_to_tidy_once_the_outcome_is_recorded(house, monkeypatch):
    """A worker killed after that has nobody who would come after it."""
    switch, seen = jobs.switch_status, []

    def watched(session, job, to, **fields):
        seen.append((to, stored(house) - named(house)))
        return switch(session, job, to, **fields)

    house.play('log("one"); save(2); sys.exit(1)')
    monkeypatch.setattr(jobs, "switch_status", watched)
    house.play('log("two"); save(4)')
    assert seen[0][0] == "running"
    assert seen[1:] == [("succeeded", set())]


def test_a_log_that_was_stored_and_not_recorded_leaves_the_one_that_was(house, client):
    """Its file is never written over: what a row names stays what the row says."""
    attempt = house.attempt("")
    attempt.directory.mkdir(parents=True)
    log = attempt.directory / "training.log"
    log.write_text("one\n")
    attempt.shipper.ship_log()
    with house.context.database.write() as session:
        job = jobs.lock_for_worker(session, attempt.claim)
        lost = FailureReason.WORKER_LOST
        jobs.return_to_queue(session, job, attempt.claim.token, lost, "", free=False)
    log.write_text("one\ntwo\n")
    with pytest.raises(Fenced):
        attempt.shipper.ship_log()
    url = f"/v1/runs/{house.run_id}/artifacts/training.log"
    answer = client.get(url)
    assert answer.text == "one\n"
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    assert "training.log" in answer.headers["content-disposition"]


def test_a_log_that_grows_leaves_two_of_itself_in_the_store(house):
    """The newest, and the one before for those who have just read its row."""
    attempt = house.attempt("")
    attempt.directory.mkdir(parents=True)
    for text in ("one", "one two", "one two three"):
        (attempt.directory / "training.log").write_text(text)
        attempt.shipper.ship_log()
    assert house.log == "one two three"
    assert len(stored(house)) == 2
    attempt.shipper.remove_orphans()
    assert stored(house) == named(house)
