"""Use cases: cancel, pause, resume and retry a run. `by` is the name of the caller's API key."""

from collections.abc import Callable

from sqlmodel import Session

from service.context import Context
from service.store import events, job_control
from service.store import runs as rows
from service.store.events import NewEvent
from service.store.rewind import UnusedFiles, rewind
from service.store.tables import Job, Run
from service.usecases.job_submission import announce


def cancel(context: Context, run_id: str, *, by: str | None = None) -> tuple[Run, Job]:
    """Cancel a waiting run at once, a running one at its next step. Raises NotFound, Conflict."""
    return _request(context, run_id, job_control.cancel, by)


def pause(context: Context, run_id: str, *, by: str | None = None) -> tuple[Run, Job]:
    """Pause a waiting run at once, a running one at its next step. Raises NotFound, Conflict."""
    return _request(context, run_id, job_control.pause, by)


def resume(context: Context, run_id: str, *, by: str | None = None) -> tuple[Run, Job]:
    """Return a paused run to the queue. Raises NotFound, Conflict."""
    with context.database.write() as session:
        run, job = rows.get_run(session, run_id)
        queued = job_control.resume(session, job, by)
        rows.lock(session, run)  # raises NotFound if it is being deleted
    if queued:
        announce(context, job)
    with context.database.read() as session:
        return rows.get_run(session, run_id)


def retry(
    context: Context, run_id: str, *, from_start: bool, by: str | None = None
) -> tuple[Run, Job]:
    """Run a failed run again, from its newest checkpoint or from the start.

    From the start, its checkpoints and results are deleted. Raises NotFound, Conflict.
    """
    dropped: list[UnusedFiles] = []
    with context.database.write() as session:
        run, job = rows.get_run(session, run_id)
        job_control.retry(session, job, by)
        rows.lock(session, run)  # raises NotFound if it is being deleted
        if from_start:
            dropped = rewind(session, job, None)
            events.append(session, run.id, job.id, [NewEvent("rewound", {"step": 0})])
    for files in dropped:  # after the commit: no row may name files that are gone
        context.store.delete_tree(files.prefix)
    announce(context, job)
    with context.database.read() as session:
        return rows.get_run(session, run_id)


def _request(
    context: Context,
    run_id: str,
    request: Callable[[Session, Job, str | None], None],
    by: str | None,
) -> tuple[Run, Job]:
    with context.database.write() as session:
        _, job = rows.get_run(session, run_id)
        request(session, job, by)
    with context.database.read() as session:
        return rows.get_run(session, run_id)
