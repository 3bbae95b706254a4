"""The fault matrix: what breaks, how, when, and what is promised all the same.

After every case the same must hold, whatever broke (invariants.py): one final state, reached;
events without gap; one contiguous series of metrics; weights bit-equal to the undisturbed run's;
no write by an attempt that has lost the job; nothing left over. What a case adds to that:

    end       the state that the run reaches
    attempts  how many count against its limits: one that was told to stop, or paused, does not
    lost      steps made again after the break, at most
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.faults.case_run import SAVE_STEPS
from tests.faults.scenarios import messages, processes, space, surroundings, users
from tests.faults.scenarios.scenario import Scenario

FILES = "files"
"""SQLite, and Celery's filesystem transport."""
SERVERS = "servers"
"""PostgreSQL, and a Redis-protocol server."""
BUCKET = "bucket"
"""As files, and an S3 server for the store: for what differs there, which is uploads."""
BOTH = (FILES, SERVERS)
SETTINGS = (*BOTH, BUCKET)


@dataclass(frozen=True)
class Moment:
    """Where a process is held until the fault is there: a point of inject/sitecustomize.py."""

    name: str
    point: str
    step: int | None = None
    """Only there: of six steps. A checkpoint is written every second one."""
    merged: bool = False
    """Only where it is about a merged model's files."""
    recorded: int = 0
    """The checkpoint that is recorded before, so that it is known how much can be lost."""

    @property
    def conditions(self) -> dict[str, Any]:
        """For its gate."""
        found = {"step": self.step, "merged": self.merged or None}
        return {name: value for name, value in found.items() if value is not None}


CLAIM = Moment("before claim", "before_claim")
LOADING = Moment("loading", "loading")
STEP = Moment("mid-step", "mid_step", step=4, recorded=2)
SAVE = Moment("mid-save", "mid_save", step=4, recorded=2)
SAVED = Moment("saved, not announced", "after_save", step=4, recorded=2)
UNSTORED = Moment("before upload", "before_upload", step=4, recorded=2)
UPLOAD = Moment("mid-upload", "mid_upload", step=4, recorded=2)
ASIDE = Moment("uploaded, not renamed", "uploaded_aside", step=4, recorded=2)
BEGUN = Moment("upload in parts begun", "upload_begun", step=4, recorded=2)
PART = Moment("a part sent", "part_sent", step=4, recorded=2)
PARTS = Moment("all parts sent", "before_complete", step=4, recorded=2)
STORED = Moment("stored, not recorded", "before_record", step=4, recorded=2)
RECORDING = Moment("mid-transaction", "mid_transaction", step=4, recorded=2)
RECORDED = Moment("recorded", "answer_lost", step=4, recorded=2)
LATER = Moment("mid-step", "mid_step", step=5)
LAST = Moment("after the last step", "at_end", recorded=4)
ENDED = Moment("ended, not recorded", "after_end", recorded=4)


@dataclass(frozen=True)
class Case:
    scenario: Scenario
    when: tuple[Moment, ...] = ()
    quick: str | None = None
    """The setting on which plain `make test` scenarios it too."""
    on: tuple[str, ...] = BOTH
    end: str = "succeeded"
    attempts: int = 1
    lost: int | None = None
    same: bool = True
    """Whether the values are those of the undisturbed run, as far as it came."""
    settings: dict[str, float] = field(default_factory=dict)
    """Of the workers, where they differ from environment.TIMES."""
    job: str = "train"
    """What the job is that it happens to."""

    @property
    def moment(self) -> str:
        return ", ".join(moment.name for moment in self.when) or "-"

    @property
    def id(self) -> str:
        if len(self.when) > 1:
            return f"{self.scenario.name}-each"
        return "-".join([self.scenario.name, *(moment.point for moment in self.when)])


AT_ANY_TIME = (CLAIM, LOADING, STEP, SAVE, STORED, ENDED)


def together(
    scenario: Scenario, quick: str, moments: tuple[Moment, ...] = AT_ANY_TIME
) -> Iterator[Case]:
    """What breaks leaves the attempt alone: a run can go through several moments, or have one."""
    yield Case(scenario, moments, quick, on=(quick,))
    for moment in AT_ANY_TIME:
        yield Case(scenario, (moment,))


def cases() -> Iterator[Case]:
    # A program that dies is started again from its last checkpoint, as an attempt that counts.
    again: dict[str, Any] = {"attempts": 2, "lost": SAVE_STEPS}
    yield Case(processes.program_killed, (LOADING,), FILES, **again)
    yield Case(processes.program_killed, (STEP,), SERVERS, **again)
    yield Case(processes.program_killed, (SAVE,), FILES, **again)
    yield Case(processes.program_killed, (SAVED,), SERVERS, **again)
    yield Case(processes.program_killed, (LAST,), FILES, **again)

    # One that stands still is killed when its limit is over.
    step, checkpoint = {"step_limit_seconds": 4}, {"checkpoint_limit_seconds": 4}
    yield Case(
        processes.program_frozen, (LOADING,), settings={"startup_limit_seconds": 15}, **again
    )
    yield Case(processes.program_frozen, (STEP,), FILES, settings=step, **again)
    yield Case(processes.program_frozen, (SAVE,), settings=checkpoint, **again)
    yield Case(processes.program_frozen, (SAVED,), settings=checkpoint, **again)
    yield Case(processes.program_frozen, (LAST,), settings=checkpoint | step, **again)
    yield Case(processes.program_hangs, (LOADING,), settings={"startup_limit_seconds": 15}, **again)
    yield Case(processes.program_hangs, (STEP,), settings=step, **again)
    yield Case(processes.program_hangs, (SAVE,), settings=checkpoint, **again)

    # A worker that dies, or is thought dead: its lease runs out, and another takes the job.
    yield Case(processes.worker_killed, (CLAIM,))
    yield Case(processes.worker_killed, (LOADING,), FILES, **again)
    yield Case(processes.worker_killed, (STEP,), SERVERS, **again)
    yield Case(processes.worker_killed, (SAVE,), FILES, **again)
    yield Case(processes.worker_killed, (UPLOAD,), SERVERS, **again)
    yield Case(processes.worker_killed, (STORED,), **again)
    yield Case(processes.worker_killed, (RECORDING,), **again)
    yield Case(processes.worker_killed, (LAST,), **again)
    yield Case(processes.worker_killed, (ENDED,), SERVERS, **again)
    yield Case(processes.worker_zombie, (CLAIM,), FILES)
    yield Case(processes.worker_zombie, (LOADING,), **again)
    yield Case(processes.worker_zombie, (STEP,), FILES, **again)
    yield Case(processes.worker_zombie, (SAVE,), **again)
    yield Case(processes.worker_zombie, (UPLOAD,), **again)
    yield Case(processes.worker_zombie, (STORED,), SERVERS, **again)
    # A frozen process keeps all of SQLite locked, and nobody else can do anything about it.
    yield Case(processes.worker_zombie, (RECORDING,), on=(SERVERS,), **again)
    yield Case(processes.worker_zombie, (LAST,), **again)
    yield Case(processes.worker_zombie, (ENDED,), **again)
    yield Case(processes.worker_cut_off, (CLAIM,), on=(SERVERS,))
    for moment in (LOADING, STEP, SAVE, STORED, RECORDING, LAST, ENDED):
        quick = SERVERS if moment == RECORDING else None
        yield Case(processes.worker_cut_off, (moment,), quick, on=(SERVERS,), **again)

    # A worker that is told to stop returns its job to the queue at no cost; at the end it finishes.
    yield Case(processes.worker_terminated, (CLAIM,))
    yield Case(processes.worker_terminated, (LOADING,))
    yield Case(processes.worker_terminated, (STEP,), SERVERS, lost=0)
    yield Case(processes.worker_terminated, (SAVE,), lost=0)
    yield Case(processes.worker_terminated, (STORED,), lost=0)
    yield Case(processes.worker_terminated, (LAST,))
    yield Case(processes.worker_terminated, (ENDED,))
    yield Case(processes.worker_terminated_twice, (CLAIM,))
    yield Case(processes.worker_terminated_twice, (LOADING,))
    for moment in (STEP, SAVE, STORED, LAST):
        quick = FILES if moment == STEP else None
        yield Case(processes.worker_terminated_twice, (moment,), quick, lost=SAVE_STEPS)
    yield Case(processes.worker_terminated_twice, (ENDED,))

    # What everything stands on comes and goes: the run goes on.
    yield from together(surroundings.api_killed, SERVERS)
    yield from together(surroundings.broker_killed, FILES)
    yield from together(surroundings.broker_cut, SERVERS, (LOADING, STEP))
    yield from together(surroundings.database_cut, FILES)
    yield from together(surroundings.database_stalled, SERVERS, (STEP, STORED))
    yield Case(surroundings.database_cut, (RECORDING,), on=(SERVERS,))
    yield Case(surroundings.answer_lost, (RECORDED,), FILES)
    for moment in (LOADING, STEP, STORED):
        yield Case(surroundings.api_frozen, (moment,))
        yield Case(surroundings.machine_suspended, (moment,), SERVERS if moment == STEP else None)
    yield Case(surroundings.machine_lost, (CLAIM,))
    for moment in (LOADING, STEP, SAVE, STORED, LAST, ENDED):
        yield Case(surroundings.machine_lost, (moment,), FILES if moment == STEP else None, **again)

    # A message says that there is work on a queue, and nothing more.
    yield Case(messages.message_twice, (CLAIM,))
    yield Case(messages.message_often, (CLAIM,), FILES)
    yield Case(messages.message_never_sent, quick=SERVERS)
    yield Case(messages.broker_flushed, quick=FILES)
    yield Case(messages.broker_away)
    yield Case(messages.race, quick=SERVERS)
    yield Case(messages.clock_skew, (STEP,), SERVERS, **again)

    # A checkpoint that is not what was written is passed over for the one before.
    damaged: dict[str, Any] = {"attempts": 2, "lost": 2 * SAVE_STEPS}
    yield Case(space.checkpoint_truncated, (LATER,), FILES, **damaged)
    yield Case(space.checkpoint_tampered, (LATER,), **damaged)
    yield Case(space.checkpoint_deleted, (LATER,), **damaged)

    # A full disk delays what has to be written there, and ends nothing.
    yield Case(space.store_full, (STEP,), FILES)
    yield Case(space.jobs_full, (STEP,), FILES)
    yield Case(space.everything_full, (STEP,), FILES, on=(FILES,))

    # Memory: smaller micro-batches in a fresh process, or an answer.
    yield Case(space.memory_short, quick=SERVERS, same=False)
    yield Case(space.memory_short_for_evaluation, same=False)
    yield Case(space.memory_none, end="failed", same=False)

    # What a user asks for happens at the next step, unless the result is being written.
    for moment in (CLAIM, LOADING, STEP, SAVE, STORED):
        quick = FILES if moment == STEP else None
        yield Case(users.cancelled, (moment,), quick, end="cancelled", attempts=0)
    yield Case(users.cancelled_too_late, (LAST,))
    yield Case(users.cancelled_too_late, (ENDED,))
    yield Case(users.paused, (CLAIM,))
    yield Case(users.paused, (LOADING,))
    yield Case(users.paused, (STEP,), SERVERS)
    yield Case(users.paused, (SAVE,))
    yield Case(users.paused, (STORED,))
    yield Case(users.paused_too_late, (LAST,))
    yield Case(users.paused_too_late, (ENDED,))
    yield Case(users.retried, (STEP,), FILES)

    # An upload that is cut short shows nothing, and nothing of it is left.
    for moment in (UNSTORED, ASIDE):
        yield Case(processes.worker_killed, (moment,), **again)
    for moment in (BEGUN, PART, PARTS, STORED):
        yield Case(processes.worker_killed, (moment,), on=(BUCKET,), **again)
        yield Case(processes.worker_zombie, (moment,), on=(BUCKET,), **again)
    for moment in (LOADING, BEGUN, PART, PARTS, ENDED):
        quick = BUCKET if moment == PART else None
        yield Case(surroundings.bucket_cut, (moment,), quick, on=(BUCKET,))
    for moment in (BEGUN, PART, ENDED):
        yield Case(surroundings.bucket_stalled, (moment,), on=(BUCKET,))
        yield Case(surroundings.bucket_slow, (moment,), on=(BUCKET,))


CASES = tuple(cases())

ESSENTIAL = {
    "program_killed-mid_save-files",
    "worker_killed-mid_step-servers",
    "database_cut-each-files",
    "message_never_sent-servers",
    "checkpoint_truncated-mid_step-files",
    "store_full-mid_step-files",
    "memory_short-servers",
    "paused-mid_step-servers",
}
"""One case of each kind, by test id: those that every change must pass."""
