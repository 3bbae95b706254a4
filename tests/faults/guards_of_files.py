"""Guards of what is stored: files that rows name, and rows that name files."""

from tests.faults.guard import (
    PART_TESTS,
    SHIPPING,
    STEERING_TESTS,
    SUPERVISOR,
    SUPERVISOR_TESTS,
    SWEEP,
    Guard,
    row,
)

CHECKPOINTS = "worker/training/checkpoints.py"

DISK_TESTS = "tests/worker/test_full_disk.py::"
PATIENCE_TESTS = "tests/service/test_storage_patience.py::"

GUARDS = (
    Guard(
        "files that a row names are not deleted after going back",
        SHIPPING,
        "return [checkpoint for checkpoint in dropped if checkpoint.prefix not in used]",
        "return dropped",
        (f"{STEERING_TESTS}test_going_back_and_saving_again_in_one_batch_keeps_the_new_files",),
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
        "worker/supervision/job_directory.py",
        "            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))\n",
        "",
        (
            "tests/unit/test_supervision.py::test_a_job_directory_is_swept_when_its_owner_was_killed_and_not_before",
        ),
    ),
    Guard(
        "what an attempt stored without a row is removed",
        SUPERVISOR,
        "                    self.patience.afterwards(self.shipper.tidy)\n",
        "                    pass\n",
        (f"{SUPERVISOR_TESTS}test_a_file_that_is_not_what_was_announced_is_the_programs_fault",),
    ),
    Guard(
        "what comes back after the attempt's end is removed",
        "worker/supervision/retry.py",
        "                last()\n",
        "                pass\n",
        (f"{PATIENCE_TESTS}test_an_upload_that_comes_back_after_the_end_leaves_nothing[sqlite]",),
    ),
    Guard(
        "a look at earlier attempts leaves this one's files alone",
        "worker/supervision/event_shipper.py",
        "self._tidy(self.claim.token - 1)",
        "self._tidy(self.claim.token)",
        (
            f"{PATIENCE_TESTS}test_looking_for_what_earlier_attempts_left_may_take_its_time[sqlite-during]",
        ),
    ),
    Guard(
        "a slow store is not one that is away",
        "worker/supervision/retry.py",
        "max(since, self._movement.at)",
        "since",
        (f"{PATIENCE_TESTS}test_a_slow_store_may_take_longer_than_the_patience[sqlite]",),
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
        SWEEP,
        "program_events.prefixes_up_to(job.run_id, job_id, token)",
        "[program_events.prefix(job.run_id, job_id, token)]",
        (
            "tests/service/test_results.py::test_the_sweep_removes_what_a_lost_attempt_had_replaced_of_those_before",
        ),
    ),
    Guard(
        "a log that a row names is never written over",
        "worker/supervision/event_shipper.py",
        'place = f"log/{size}/{PurePosixPath(shown).name}"',
        "place = PurePosixPath(shown).name",
        (f"{SUPERVISOR_TESTS}test_a_log_that_was_stored_and_not_recorded_leaves_the_one_that_was",),
    ),
)
