"""Requests of a user on a job: cancel, pause, resume, retry.

Repeating a request, or requesting the present state, is no error; but only a failed run can be
retried. `by` names the requester, for the resulting event; None where access is open.
"""

from sqlalchemy import update
from sqlmodel import Session, col, select

from service.domain.errors import Conflict
from service.domain.job_kinds import job_kind
from service.domain.states import JobRequest, JobStatus
from service.store import jobs
from service.store.tables import Job


def _lock(session: Session, job: Job) -> Job:
    """Return the current row, locked against its worker and the sweep until the commit."""
    statement = select(Job).where(Job.id == job.id).with_for_update()
    return session.exec(statement.execution_options(populate_existing=True)).one()


def _request(session: Session, job: Job, request: JobRequest | None, by: str | None) -> None:
    if job.request == request:  # requested already: the first requester stays
        return
    requester = None if request is None else by
    session.execute(
        update(Job).where(col(Job.id) == job.id).values(request=request, requested_by=requester)
    )
    session.refresh(job)


def cancel(session: Session, job: Job, by: str | None = None) -> None:
    """Cancel a waiting job at once; request it of a running one's supervisor. Raises Conflict."""
    job = _lock(session, job)
    if job.status == JobStatus.RUNNING:
        _request(session, job, JobRequest.CANCEL, by)
    elif job.status != JobStatus.CANCELLED and not jobs.switch_status(
        session, job, JobStatus.CANCELLED, by=by
    ):
        what = job_kind(job.kind).noun
        raise Conflict(f"the {what} has already {job.status}; there is nothing to cancel")


def pause(session: Session, job: Job, by: str | None = None) -> None:
    """Pause a waiting job at once; request it of a running one's supervisor. Raises Conflict."""
    job = _lock(session, job)
    if job.status == JobStatus.RUNNING:
        if job.request == JobRequest.CANCEL:
            raise Conflict("the run is being cancelled; it cannot be paused any more")
        _request(session, job, JobRequest.PAUSE, by)
    elif job.status != JobStatus.PAUSED and not jobs.switch_status(
        session, job, JobStatus.PAUSED, by=by
    ):
        raise Conflict(f"the run has already {job.status}; there is nothing to pause")


def resume(session: Session, job: Job, by: str | None = None) -> bool:
    """Return a paused job to the queue; withdraw a pause that has not happened yet.

    Returns True if it was queued now, so that a queue message is to be sent. Raises Conflict.
    """
    job = _lock(session, job)
    if job.status == JobStatus.PAUSED:
        jobs.switch_status(session, job, JobStatus.QUEUED, sources=(JobStatus.PAUSED,), by=by)
        return True
    if job.status == JobStatus.RUNNING and job.request == JobRequest.PAUSE:
        _request(session, job, None, by)
    elif job.status == JobStatus.RUNNING and job.request == JobRequest.CANCEL:
        raise Conflict("the run is being cancelled; clone it to start anew")
    elif job.status == JobStatus.FAILED:
        raise Conflict("the run has failed; POST …/retry starts it again")
    elif job.status not in (JobStatus.QUEUED, JobStatus.RUNNING):
        raise Conflict(f"the run has already {job.status}; clone it to run it again")
    return False


def retry(session: Session, job: Job, by: str | None = None) -> None:
    """Return a failed job to the queue with all its attempts left. Raises Conflict.

    Memory may be larger this time, so the batch is again the requested one.
    """
    job = _lock(session, job)
    queued = jobs.switch_status(
        session,
        job,
        JobStatus.QUEUED,
        sources=(JobStatus.FAILED,),
        by=by,
        attempts=0,
        attempts_since_checkpoint=0,
        train_batch_size=None,
        eval_batch_size=None,
        failure_reason=None,
        failure_detail=None,
    )
    if not queued:
        remedy = {
            JobStatus.PAUSED: "POST …/resume lets it go on",
            JobStatus.SUCCEEDED: "clone it to run it again",
            JobStatus.CANCELLED: "clone it to run it again",
        }.get(JobStatus(job.status), "there is nothing to retry")
        raise Conflict(f"only a failed run can be retried; this one is {job.status}: {remedy}")
