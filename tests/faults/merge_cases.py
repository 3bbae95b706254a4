"""The same for a merge: what breaks, how, when. It begins anew each time, so no steps are lost.

After every case (merge_case_run.py): the merge came to its end, its files are byte-equal to the
undisturbed merge's, or it has none; the run is as it was; until the merge has succeeded nobody
sees anything of a model; and the invariants of a run, as far as they are those of a job.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tests.faults.matrix import BOTH, BUCKET, CLAIM, ENDED, FILES, LOADING, SERVERS, Case, Moment
from tests.faults.scenarios import processes, surroundings, users

WRITING = Moment("writing", "mid_merge")
WRITTEN = Moment("written, not announced", "before_announce")
UNSTORED = Moment("before upload", "before_upload", merged=True)
UPLOAD = Moment("mid-upload", "mid_upload", merged=True)
PART = Moment("a part sent", "part_sent", merged=True)
PARTS = Moment("all parts sent", "before_complete", merged=True)
STORED = Moment("stored, not recorded", "before_record", merged=True)
RECORDING = Moment("mid-transaction", "mid_transaction", merged=True)
RECORDED = Moment("recorded", "answer_lost", merged=True)
OVER = replace(ENDED, recorded=0)


def _cases() -> Iterator[Case]:
    again: dict[str, Any] = {"attempts": 2}
    for moment in (LOADING, WRITING, WRITTEN):
        yield Case(processes.program_killed, (moment,), **again)
    yield Case(processes.program_frozen, (WRITING,), settings={"step_limit_seconds": 10}, **again)

    yield Case(processes.worker_killed, (CLAIM,))
    for moment in (LOADING, WRITING, WRITTEN, UNSTORED, UPLOAD, STORED, RECORDING, OVER):
        quick = FILES if moment == UPLOAD else None
        yield Case(processes.worker_killed, (moment,), quick, **again)
    for moment in (PART, PARTS, STORED):
        yield Case(processes.worker_killed, (moment,), on=(BUCKET,), **again)
    for moment in (PART, PARTS, OVER):
        yield Case(surroundings.bucket_cut, (moment,), on=(BUCKET,))
    yield Case(surroundings.bucket_slow, (PART,), on=(BUCKET,))
    for moment in (WRITING, UPLOAD, STORED, RECORDING, OVER):
        # As with a run's: frozen so, a worker keeps all of SQLite locked.
        on = (SERVERS,) if moment == RECORDING else BOTH
        yield Case(processes.worker_zombie, (moment,), on=on, **again)
    for moment in (STORED, RECORDING, OVER):
        yield Case(processes.worker_cut_off, (moment,), on=(SERVERS,), **again)
    for moment in (CLAIM, LOADING, WRITING, WRITTEN, UPLOAD, STORED, OVER):
        yield Case(processes.worker_terminated, (moment,))
    yield Case(processes.worker_terminated_twice, (WRITING,))

    for moment in (WRITING, STORED):
        yield Case(surroundings.api_killed, (moment,))
        yield Case(surroundings.broker_killed, (moment,))
        yield Case(surroundings.database_cut, (moment,))
    yield Case(surroundings.answer_lost, (RECORDED,))
    for moment in (WRITING, STORED, OVER):
        yield Case(surroundings.machine_lost, (moment,), **again)

    for moment in (CLAIM, LOADING, WRITING):
        yield Case(users.cancelled, (moment,), end="cancelled", attempts=0)
    for moment in (WRITTEN, UPLOAD, STORED, OVER):
        yield Case(users.cancelled_too_late, (moment,))


MERGE_CASES = tuple(replace(case, job="merge") for case in _cases())
