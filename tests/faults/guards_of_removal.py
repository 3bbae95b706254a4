"""Guards of what is shown whole or not at all, and of what is removed."""

from tests.faults.guard import SHIPPING, Guard, deletion_row, merge_row, row

RETENTION = "service/usecases/retention.py"
RETENTION_ROWS = "service/store/retention.py"

MERGE_TESTS = "tests/service/test_merges.py::"
RETENTION_TESTS = "tests/service/test_retention.py::"
STORE_TESTS = "tests/service/test_artifact_store.py::"

GUARDS = (
    Guard(
        "a merged model is shown when its merge has succeeded, and not before",
        "service/store/merges.py",
        "return self.job.status == JobStatus.SUCCEEDED and bool(self.files)\n\n    @property",
        "return bool(self.files)\n\n    @property",
        (merge_row("worker_killed-after_end-files"),),
    ),
    Guard(
        "an attempt's merged model takes the place of an earlier attempt's, whole",
        SHIPPING,
        "    for old in merges.files_of(session, job):\n        session.delete(old)\n",
        "",
        (
            f"{MERGE_TESTS}test_a_worker_lost_after_them_is_followed_by_one_whose_files_replace_its_own",
        ),
    ),
    Guard(
        "a merge that came to nothing has no files",
        "service/store/jobs.py",
        "if withdrawn is not None and to in (JobStatus.FAILED, JobStatus.CANCELLED):",
        "if False:",
        (f"{MERGE_TESTS}test_a_merge_that_ends_otherwise_after_it_was_shown_shows_nothing",),
    ),
    Guard(
        "what a lost attempt stored of a merged model is removed",
        "service/queue/sweep.py",
        "            self.store.remove_except(prefix, recorded_keys)\n",
        "            pass\n",
        (f"{MERGE_TESTS}test_a_worker_lost_amid_its_uploads_leaves_nothing",),
    ),
    Guard(
        "a run is hidden before its files go",
        RETENTION,
        "        retention.begin_delete(session, run_id, by)\n",
        "        pass\n",
        (deletion_row("deleted_again-mid_removal-files"),),
    ),
    Guard(
        "a run's rows stay until its files are gone",
        RETENTION,
        '    _remove_tree(store, f"runs/{run_id}")\n',
        "    with database.write() as session:\n"
        "        retention.finish_delete(session, run_id)\n"
        '    _remove_tree(store, f"runs/{run_id}")\n',
        (
            deletion_row("deleted_again-mid_removal-files"),
            deletion_row("collected-before_removal-files"),
        ),
    ),
    Guard(
        "a deletion that was cut short is ended by the collector",
        RETENTION,
        "            delete_run(database, store, run_id)\n",
        "            pass\n",
        (deletion_row("collected-before_rows-files"),),
    ),
    Guard(
        "no worker takes up a job of a run that is being deleted",
        "service/store/jobs.py",
        "if run is None or run.deleted_at is not None:",
        "if run is None:",
        (deletion_row("asked_meanwhile-before_removal-servers"),),
    ),
    Guard(
        "nothing is asked for on a run that is being deleted",
        "service/store/runs.py",
        "visible = select(Run.id).where(Run.id == run.id, col(Run.deleted_at).is_(None))",
        "visible = select(Run.id).where(Run.id == run.id)",
        (deletion_row("asked_too_late-before_removal-servers"),),
    ),
    Guard(
        "a run that a worker has a job of is not deleted",
        RETENTION_ROWS,
        "        if job.status == JobStatus.RUNNING:\n            kind",
        "        if False:\n            what",
        (
            f"{RETENTION_TESTS}test_a_running_run_is_not_deleted",
            f"{RETENTION_TESTS}test_a_running_evaluation_keeps_its_run",
        ),
    ),
    Guard(
        "the collector passes over what a worker is storing",
        RETENTION,
        "        and not one.key.startswith(tuple(prefixes))\n",
        "",
        (f"{RETENTION_TESTS}test_what_a_running_job_stores_is_its_own",),
    ),
    Guard(
        "an upload in parts that was cut short is removed",
        "service/artifacts/bucket.py",
        "entry for entry in self.entries(prefix) if entry.half or entry.key not in keep",
        "one for one in self.entries(prefix) if one.half is None and one.key not in keep",
        (
            f"{STORE_TESTS}test_an_upload_that_fails_half_way_leaves_nothing_visible",
            row("worker_killed-part_sent-bucket"),
        ),
    ),
)
