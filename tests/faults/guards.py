"""Every guard is shown to matter: a test goes red without it.

A row names a guard, the text that is the guard, what stands in its place in a copy of the tree, and
tests, each of which must then fail. Before that all of them must pass in the copy as it is.

PYTHONPATH=tests/support python tests/faults/guards.py [NAME …]

Exits with 1 where a guard could be taken away unnoticed.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from report import RESULTS, put, table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
SECONDS = 600

JOBS = "service/store/jobs.py"
SWEEP = "service/sweep.py"
SHIPPING = "service/store/shipping.py"
CHILD = "worker/child.py"
SUPERVISOR = "worker/supervisor.py"
CHECKPOINTS = "worker/training/checkpoints.py"

RESULT_TESTS = "tests/service/test_results.py::"
STEERING_TESTS = "tests/service/test_steering.py::"
SUPERVISOR_TESTS = "tests/service/test_supervisor.py::"
DISK_TESTS = "tests/worker/test_full_disk.py::"
GUARD_TESTS = "tests/faults/test_guards.py::"
PART_TESTS = "tests/unit/test_parts.py::"


def row(name: str) -> str:
    """The test of a row of the matrix."""
    return f"tests/faults/test_matrix.py::test_row[{name}]"


@dataclass(frozen=True)
class Guard:
    name: str
    file: str
    old: str
    """The guard: this text, which stands in the file exactly once."""
    new: str
    tests: tuple[str, ...]


GUARDS = (
    Guard(
        "what an attempt records carries its token",
        JOBS,
        "Job.id == claim.job_id, Job.token == claim.token, Job.status == JobStatus.RUNNING",
        "Job.id == claim.job_id, Job.status == JobStatus.RUNNING",
        (f"{RESULT_TESTS}test_a_stale_token_writes_nothing",),
    ),
    Guard(
        "a lease is renewed by the holder of the token alone",
        JOBS,
        "            col(Job.token) == claim.token,\n            col(Job.status)",
        "            col(Job.status)",
        (f"{GUARD_TESTS}test_a_stale_token_renews_no_lease",),
    ),
    Guard(
        "an attempt is ended by the holder of the token alone",
        JOBS,
        "        statement = statement.where(col(Job.token) == held_token)\n",
        "        pass\n",
        (f"{GUARD_TESTS}test_a_stale_token_ends_no_attempt",),
    ),
    Guard(
        "a status changes only from a state that allows it",
        JOBS,
        "col(Job.id) == job.id, col(Job.status).in_(list(allowed))",
        "col(Job.id) == job.id",
        (f"{RESULT_TESTS}test_a_claim_is_had_by_one", row("race-servers")),
    ),
    Guard(
        "a job is taken back only when its lease has run out",
        JOBS,
        "            Job.status == JobStatus.RUNNING,\n"
        "            col(Job.lease_expires_at) < db_now(),\n",
        "            Job.status == JobStatus.RUNNING,\n",
        (f"{RESULT_TESTS}test_a_sweep_that_comes_too_late_leaves_the_owner_alone",),
    ),
    Guard(
        "after an outage owners get time to renew",
        SWEEP,
        "(waited := time.monotonic() - began) > self.settings.lease_seconds / 4",
        "(waited := time.monotonic() - began) > 1e9",
        (f"{RESULT_TESTS}test_a_sweep_that_had_to_wait_for_the_database_gives_owners_time",),
    ),
    Guard(
        "attempts are capped",
        JOBS,
        "MAX_ATTEMPTS_WITHOUT_CHECKPOINT = 3",
        "MAX_ATTEMPTS_WITHOUT_CHECKPOINT = 1000",
        (f"{RESULT_TESTS}test_the_sweep_returns_expired_leases_three_times_then_fails",),
    ),
    Guard(
        "expired leases are swept",
        SWEEP,
        "if time.monotonic() - since >= self._renewal_seconds:",
        "if False:",
        (row("worker_killed-mid_step-servers"),),
    ),
    Guard(
        "a lease that is expired for a moment only is left to its owner",
        SWEEP,
        "if time.monotonic() - since >= self._renewal_seconds:",
        "if True:",
        (f"{RESULT_TESTS}test_what_is_expired_for_a_moment_only_is_left_to_its_owner",),
    ),
    Guard(
        "nothing that hangs keeps a job",
        "worker/patience.py",
        "            if self.grace_is_over() or time.monotonic() > deadline:",
        "            if False:",
        (
            f"{SUPERVISOR_TESTS}test_a_store_that_hangs_does_not_keep_the_job[sqlite-put_file-cancel]",
        ),
    ),
    Guard(
        "a program that stops though nobody told it to is an attempt",
        SUPERVISOR,
        "(status == EXIT_STOPPED and self._stood_still)",
        "status == EXIT_STOPPED",
        (f"{SUPERVISOR_TESTS}test_one_that_stops_though_nobody_told_it_to_is_an_attempt",),
    ),
    Guard(
        "files that a row names are not deleted after going back",
        SHIPPING,
        "return [checkpoint for checkpoint in dropped if checkpoint.prefix not in used]",
        "return dropped",
        (f"{STEERING_TESTS}test_going_back_and_saving_again_in_one_batch_keeps_the_new_files",),
    ),
    Guard(
        "memory: the smaller batch is kept by the next attempt",
        "worker/shrink.py",
        "        setattr(row, field, smaller)\n",
        "",
        (f"{SUPERVISOR_TESTS}test_the_smaller_batch_is_kept_by_the_next_attempt",),
    ),
    Guard(
        "wake-ups are sent again",
        SWEEP,
        "waiting = jobs.unclaimed(session, self.settings.sweep_seconds * _PATIENCE)",
        "waiting: list[str] = []",
        (row("broker_flushed-files"), row("message_never_sent-servers")),
    ),
    Guard(
        "a message is sent after the commit",
        "service/runs.py",
        "            idempotency.remember(session, key, run.id)\n",
        "            idempotency.remember(session, key, run.id)\n"
        "            broker.enqueue(context.celery, job.id)\n",
        (f"{GUARD_TESTS}test_a_message_is_sent_when_its_job_is_there",),
    ),
    Guard(
        "a message appears whole in the folder",
        "service/broker_files.py",
        'aside = folder / f".{name}.part"',
        "aside = folder / name",
        (f"{PART_TESTS}test_a_message_appears_whole",),
    ),
    Guard(
        "a line is recorded once",
        SHIPPING,
        "line.seq > job.shipped_seq",
        "line.seq > 0",
        (
            f"{RESULT_TESTS}test_the_same_lines_twice_are_recorded_once",
            row("answer_lost-answer_lost-files"),
        ),
    ),
    Guard(
        "going back supersedes the metrics past the step",
        "service/store/rewind.py",
        "session.execute(delete(Metric).where(col(Metric.run_id) == job.run_id, "
        "col(Metric.step) > past))",
        "pass",
        (f"{RESULT_TESTS}test_going_back_supersedes_what_was_past",),
    ),
    Guard(
        "no program outlives its supervisor: its process group is killed",
        CHILD,
        "os.killpg(self._process.pid, signal.SIGKILL)",
        "pass",
        (row("program_frozen-mid_step-files"),),
    ),
    Guard(
        "no program outlives its supervisor: the pipe",
        "worker/programs/parent.py",
        "        os._exit(EXIT_STOPPED)\n\n    threading",
        "        return\n\n    threading",
        ("tests/worker/test_train_program.py::test_when_the_supervisors_pipe_closes_it_is_gone",),
    ),
    Guard(
        "no program outlives its supervisor: the kernel",
        "worker/programs/parent.py",
        "        _die_with_parent()\n\n    def listen",
        "        pass\n\n    def listen",
        (
            "tests/worker/test_supervised.py::test_a_program_that_stands_still_dies_with_its_supervisor",
        ),
    ),
    Guard(
        "a program that stands still is killed",
        SUPERVISOR,
        "(overdue := pulse.overdue()) is not None",
        "(overdue := None) is not None",
        (row("program_frozen-mid_step-files"),),
    ),
    Guard(
        "a program is told to stop",
        SUPERVISOR,
        "                child.terminate()\n",
        "                pass\n",
        (row("worker_told-mid_step-servers"), row("cancelled-mid_step-files")),
    ),
    Guard(
        "an attempt that was told to stop costs nothing",
        SUPERVISOR,
        "_TOLD, free=True)\n        elif self._stalled",
        "_TOLD, free=False)\n        elif self._stalled",
        (row("worker_told-mid_step-servers"),),
    ),
    Guard(
        "a file appears whole in the store",
        "service/artifacts/directory.py",
        'aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")',
        "aside = target",
        (f"{PART_TESTS}test_a_put_that_fails_leaves_nothing_visible",),
    ),
    Guard(
        "a checkpoint is written aside",
        CHECKPOINTS,
        '    aside = directory.with_name(f".{directory.name}.tmp")',
        "    aside = directory",
        (f"{DISK_TESTS}test_a_checkpoint_that_cannot_take_its_place_leaves_the_one_there",),
    ),
    Guard(
        "what a checkpoint's files hold is compared with its manifest",
        CHECKPOINTS,
        "        if _fingerprint(directory / name) != expected:",
        "        if False:",
        ("tests/worker/test_training.py::test_a_torn_or_tampered_checkpoint_is_refused",),
    ),
    Guard(
        "what a checkpoint's files hold is compared with its row",
        "service/artifacts/files.py",
        "expected is not None and found != expected",
        "False",
        (
            "tests/unit/test_supervision.py::test_a_file_that_is_not_what_was_put_is_noticed",
            row("checkpoint_truncated-mid_step-files"),
        ),
    ),
    Guard(
        "a job directory that somebody works in is not swept",
        "worker/job_directory.py",
        "            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))\n",
        "",
        (
            "tests/unit/test_supervision.py::test_a_job_directory_is_swept_when_its_owner_was_killed_and_not_before",
        ),
    ),
    Guard(
        "what an attempt stored without a row is removed",
        SUPERVISOR,
        "                    with contextlib.suppress(Unavailable):\n"
        "                        self.shipper.tidy()\n",
        "                    pass\n",
        (f"{SUPERVISOR_TESTS}test_a_file_that_is_not_what_was_announced_is_the_programs_fault",),
    ),
    Guard(
        "what an attempt replaced is removed before its outcome is recorded",
        SUPERVISOR,
        "            self.patience.insist(self.shipper.tidy, _LOG_PATIENCE_SECONDS)\n"
        "        failure",
        "            pass\n        failure",
        (f"{SUPERVISOR_TESTS}test_nothing_is_left_to_tidy_once_the_outcome_is_recorded",),
    ),
    Guard(
        "the sweep removes what the attempts before the lost one left",
        "service/sweep.py",
        "shipping.prefixes_up_to(job.run_id, job_id, token)",
        "[shipping.prefix(job.run_id, job_id, token)]",
        (
            "tests/service/test_results.py::test_the_sweep_removes_what_a_lost_attempt_had_replaced_of_those_before",
        ),
    ),
    Guard(
        "a log that a row names is never written over",
        "worker/shipper.py",
        'place = f"log/{size}/{PurePosixPath(shown).name}"',
        "place = PurePosixPath(shown).name",
        (f"{SUPERVISOR_TESTS}test_a_log_that_was_stored_and_not_recorded_leaves_the_one_that_was",),
    ),
    Guard(
        "what an attempt replaced is removed before its outcome is recorded",
        SUPERVISOR,
        "            self.patience.insist(self.shipper.tidy, _LOG_PATIENCE_SECONDS)\n"
        "        failure",
        "            pass\n        failure",
        (f"{SUPERVISOR_TESTS}test_nothing_is_left_to_tidy_once_the_outcome_is_recorded",),
    ),
    Guard(
        "the sweep removes what the attempts before the lost one left",
        "service/sweep.py",
        "shipping.prefixes_up_to(job.run_id, job_id, token)",
        "[shipping.prefix(job.run_id, job_id, token)]",
        (
            "tests/service/test_results.py::test_the_sweep_removes_what_a_lost_attempt_had_replaced_of_those_before",
        ),
    ),
    Guard(
        "a log that a row names is never written over",
        "worker/shipper.py",
        'place = f"log/{size}/{PurePosixPath(shown).name}"',
        "place = PurePosixPath(shown).name",
        (f"{SUPERVISOR_TESTS}test_a_log_that_was_stored_and_not_recorded_leaves_the_one_that_was",),
    ),
)


class Copy:
    """A copy of the tree, tests included, in which a guard can be taken away."""

    def __init__(self, root: Path) -> None:
        self.root = root
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, names.split("\0")):
            source, target = ROOT / name, root / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())

    def run(self, tests: Iterable[str]) -> tuple[bool, str]:
        """Whether the tests pass, and what pytest says. The copy comes first on the path."""
        command = [sys.executable, "-m", "pytest", "--faults", "all", "--tb=line"]
        try:
            done = subprocess.run(
                [*command, *tests],
                cwd=self.root,
                capture_output=True,
                text=True,
                check=False,
                timeout=SECONDS * 3,
            )
        except subprocess.TimeoutExpired:
            return False, "it did not come to an end"
        # 1 is a test that failed; everything else says that none was run as it should have been.
        if done.returncode not in (0, 1):
            raise SystemExit(
                f"pytest could not run the tests:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return done.returncode == 0, done.stdout[-3000:]

    def without(self, guard: Guard) -> list[str]:
        """Take the guard away, and name those of its tests that pass all the same."""
        path = self.root / guard.file
        text = path.read_text()
        if text.count(guard.old) != 1:
            raise SystemExit(f"{guard.file} does not hold the guard {guard.name!r} exactly once")
        path.write_text(text.replace(guard.old, guard.new))
        try:
            return [test for test in guard.tests if self.run([test])[0]]
        finally:
            path.write_text(text)


def main(wanted: list[str]) -> int:
    chosen = [guard for guard in GUARDS if not wanted or any(name in guard.name for name in wanted)]
    lines, unnoticed = [], 0
    with tempfile.TemporaryDirectory(prefix="fairtune-guards-") as folder:
        copy = Copy(Path(folder))
        every = dict.fromkeys(test for guard in chosen for test in guard.tests)
        passed, said = copy.run(every)
        if not passed:
            print(f"The tests do not pass as things are:\n{said}")
            return 1
        for guard in chosen:
            green = copy.without(guard)
            unnoticed += bool(green)
            print(f"{'UNNOTICED' if green else 'noticed'}: without {guard.name!r}", *green)
            tests = "<br>".join(f"`{test.partition('::')[2]}`" for test in guard.tests)
            lines.append([guard.name, f"`{guard.file}`", tests, "no" if green else "yes"])
    if not wanted:
        text = table(["guard", "in", "tests that need it", "red without it"], lines)
        (RESULTS / "guards.md").write_text(text + "\n")
        put(PAGE, "guards", text)
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
