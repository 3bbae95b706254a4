"""Use cases on a run that is there: cancel, pause, resume, retry. `by` is who asks, if known."""

import contextlib
from collections.abc import Callable

import structlog
from sqlmodel import Session

from service.context import Context
from service.domain.errors import Unavailable
from service.domain.job_kinds import TRAIN
from service.queue import celery_app
from service.store import events, job_control
from service.store import runs as rows
from service.store.events import NewEvent
from service.store.rewind import UnusedFiles, rewind
from service.store.tables import Job, Run

log = structlog.get_logger()


def cancel(context: Context, run_id: str, *, by: str | None = None) -> tuple[Run, Job]:
    """Cancel a waiting run at once, a running one at its next step. Raises NotFound, Conflict."""
    return _steer(context, run_id, job_control.cancel, by)


def pause(context: Context, run_id: str, *, by: str | None = None) -> tuple[Run, Job]:
    """Pause a waiting run at once, a running one at its next step. Raises NotFound, Conflict."""
    return _steer(context, run_id, job_control.pause, by)


def resume(context: Context, run_id: str, *, by: str | None = None) -> tuple[Run, Job]:
    """Let a paused run go on, on any worker. Raises NotFound, Conflict."""
    with context.database.write() as session:
        run, job = rows.get_run(session, run_id)
        queued = job_control.resume(session, job, by)
        rows.lock(session, run)  # not where it is being deleted
    if queued:
        _notify(context, job)
    with context.database.read() as session:
        return rows.get_run(session, run_id)


def retry(
    context: Context, run_id: str, *, from_start: bool, by: str | None = None
) -> tuple[Run, Job]:
    """Run a failed run again, from its newest checkpoint or from the start.

    From the start, what it had learned is deleted. Raises NotFound, Conflict.
    """
    dropped: list[UnusedFiles] = []
    with context.database.write() as session:
        run, job = rows.get_run(session, run_id)
        job_control.retry(session, job, by)
        rows.lock(session, run)  # not where it is being deleted
        if from_start:
            dropped = rewind(session, job, None)
            events.append(session, run.id, job.id, [NewEvent("rewound", {"step": 0})])
    for one in dropped:  # after the commit: no row may name files that are gone
        context.store.delete_tree(one.prefix)
    _notify(context, job)
    with context.database.read() as session:
        return rows.get_run(session, run_id)


def _steer(
    context: Context,
    run_id: str,
    ask: Callable[[Session, Job, str | None], None],
    by: str | None,
) -> tuple[Run, Job]:
    with context.database.write() as session:
        _, job = rows.get_run(session, run_id)
        ask(session, job, by)
    with context.database.read() as session:
        return rows.get_run(session, run_id)


def _notify(context: Context, job: Job) -> None:
    """Send a queue message for a job; while the broker is unreachable workers find it without."""
    log.info("job queued", run_id=job.run_id, job_id=job.id)
    with contextlib.suppress(Unavailable):
        celery_app.notify(context.celery, TRAIN.queue)
