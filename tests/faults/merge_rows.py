"""The same for a merge: what breaks, how, when. It begins anew each time, so no steps are lost.

After every row (merging.py): the merge came to its end, its files are byte-equal to the undisturbed
merge's, or it has none; the run is as it was; until the merge has succeeded nobody sees anything of
a model; and the invariants of a run, as far as they are those of a job.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tests.faults.matrix import BOTH, BUCKET, CLAIM, ENDED, FILES, LOADING, SERVERS, Moment, Row
from tests.faults.plays import processes, surroundings, users

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


def _rows() -> Iterator[Row]:
    again: dict[str, Any] = {"attempts": 2}
    for moment in (LOADING, WRITING, WRITTEN):
        yield Row(processes.program_killed, (moment,), **again)
    yield Row(processes.program_frozen, (WRITING,), settings={"step_limit_seconds": 10}, **again)

    yield Row(processes.worker_killed, (CLAIM,))
    for moment in (LOADING, WRITING, WRITTEN, UNSTORED, UPLOAD, STORED, RECORDING, OVER):
        quick = FILES if moment == UPLOAD else None
        yield Row(processes.worker_killed, (moment,), quick, **again)
    for moment in (PART, PARTS, STORED):
        yield Row(processes.worker_killed, (moment,), on=(BUCKET,), **again)
    for moment in (PART, PARTS, OVER):
        yield Row(surroundings.bucket_cut, (moment,), on=(BUCKET,))
    yield Row(surroundings.bucket_slow, (PART,), on=(BUCKET,))
    for moment in (WRITING, UPLOAD, STORED, RECORDING, OVER):
        # As with a run's: frozen so, a worker keeps all of SQLite locked.
        on = (SERVERS,) if moment == RECORDING else BOTH
        yield Row(processes.worker_zombie, (moment,), on=on, **again)
    for moment in (STORED, RECORDING, OVER):
        yield Row(processes.worker_cut_off, (moment,), on=(SERVERS,), **again)
    for moment in (CLAIM, LOADING, WRITING, WRITTEN, UPLOAD, STORED, OVER):
        yield Row(processes.worker_told, (moment,))
    yield Row(processes.worker_told_twice, (WRITING,))

    for moment in (WRITING, STORED):
        yield Row(surroundings.api_killed, (moment,))
        yield Row(surroundings.broker_killed, (moment,))
        yield Row(surroundings.database_cut, (moment,))
    yield Row(surroundings.answer_lost, (RECORDED,))
    for moment in (WRITING, STORED, OVER):
        yield Row(surroundings.machine_lost, (moment,), **again)

    for moment in (CLAIM, LOADING, WRITING):
        yield Row(users.cancelled, (moment,), end="cancelled", attempts=0)
    for moment in (WRITTEN, UPLOAD, STORED, OVER):
        yield Row(users.cancelled_too_late, (moment,))


MERGE_ROWS = tuple(replace(row, job="merge") for row in _rows())
