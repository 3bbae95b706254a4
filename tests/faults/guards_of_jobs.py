"""Guards of whose a job is: leases, tokens, messages, and the programs that do the work."""

from tests.faults.guard import (
    GUARD_TESTS,
    PART_TESTS,
    RESULT_TESTS,
    SHIPPING,
    SUPERVISOR,
    SUPERVISOR_TESTS,
    SWEEP,
    Guard,
    row,
)

JOBS = "service/store/jobs.py"
BROKER = "service/queue/celery_app.py"
JOB_LOOP = "worker/supervision/job_loop.py"
QUEUE_TESTS = "tests/service/test_queue_messages.py::"
CHILD = "worker/supervision/program_process.py"

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
        "worker/supervision/retry.py",
        "            if is_over and self._leave_behind(future, abandoned):",
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
        "memory: the smaller batch is kept by the next attempt",
        "worker/supervision/oom_retry.py",
        "        setattr(row, field, smaller)\n",
        "",
        (f"{SUPERVISOR_TESTS}test_the_smaller_batch_is_kept_by_the_next_attempt",),
    ),
    Guard(
        "the sweep sends a message to a queue where jobs wait",
        SWEEP,
        "            kinds = jobs.queued_kinds(session)\n",
        "            kinds: set[str] = set()\n",
        (f"{QUEUE_TESTS}test_a_lost_message_is_sent_again_by_the_sweep",),
    ),
    Guard(
        "messages do not pile up in a queue",
        BROKER,
        "if producer.channel.queue_declare(queue=queue).message_count < MAX_MESSAGES:",
        "if True:",
        (f"{QUEUE_TESTS}test_messages_do_not_pile_up",),
    ),
    Guard(
        "an idle worker looks for jobs by itself",
        JOB_LOOP,
        "            if self._shutdown.requested.wait(LOOK_SECONDS):\n",
        "            if self._shutdown.requested.wait():\n",
        (f"{QUEUE_TESTS}test_an_idle_worker_finds_a_job_with_no_message_and_no_broker",),
    ),
    Guard(
        "a worker works on one job at a time",
        JOB_LOOP,
        "        with self._lock:\n",
        "        if True:\n",
        (f"{QUEUE_TESTS}test_a_worker_works_on_one_job_at_a_time",),
    ),
    Guard(
        "two workers claim two jobs",
        JOBS,
        "oldest.limit(1).with_for_update(skip_locked=True)",
        "oldest.limit(1)",
        (f"{QUEUE_TESTS}test_two_workers_claim_two_jobs_at_once",),
    ),
    Guard(
        "jobs of a run that is being deleted are passed over",
        JOBS,
        "    return is_queued, col(Job.kind).in_(list(kinds)), ~of_deleted_run\n",
        "    return is_queued, col(Job.kind).in_(list(kinds))\n",
        (f"{QUEUE_TESTS}test_a_job_of_a_run_being_deleted_does_not_block_the_queue",),
    ),
    Guard(
        "a message is sent after the commit",
        "service/usecases/runs.py",
        "            idempotency.remember(session, key, run.id)\n",
        "            idempotency.remember(session, key, run.id)\n"
        "            celery_app.notify(context.celery, TRAIN.queue)\n",
        (f"{GUARD_TESTS}test_a_message_is_sent_when_its_job_is_there",),
    ),
    Guard(
        "a message appears whole in the folder",
        "service/queue/filesystem_transport.py",
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
        "worker/runtime/parent_pipe.py",
        "        os._exit(EXIT_STOPPED)\n\n    threading",
        "        return\n\n    threading",
        ("tests/worker/test_train_program.py::test_when_the_supervisors_pipe_closes_it_is_gone",),
    ),
    Guard(
        "no program outlives its supervisor: the kernel",
        "worker/runtime/parent_pipe.py",
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
)
