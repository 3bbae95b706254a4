"""What the database knows about load, for a monitoring system."""

from typing import NamedTuple

from sqlalchemy import func
from sqlmodel import Session, col, select

from service.domain.job_kinds import KINDS
from service.domain.states import JobStatus
from service.store.database import db_now
from service.store.tables import Job


class Figures(NamedTuple):
    jobs: dict[tuple[str, JobStatus], int]
    """How many there are, for every kind and status, 0 included."""
    oldest_queued_seconds: float
    """How long the job that waits longest has waited, by the database's clock; 0: none waits."""
    takeovers: int
    running: list[Job]


def figures(session: Session) -> Figures:
    """Three short statements: between two of them a job may change."""
    jobs = {(kind, status): 0 for kind in KINDS for status in JobStatus}
    takeovers = 0
    grouped = select(Job.kind, Job.status, func.count(), func.sum(col(Job.takeovers))).group_by(
        col(Job.kind), col(Job.status)
    )
    for kind, status, count, taken in session.exec(grouped):
        jobs[kind, JobStatus(status)] = count
        takeovers += taken
    waiting = select(func.min(col(Job.queued_at)), db_now()).where(Job.status == JobStatus.QUEUED)
    since, now = session.exec(waiting).one()
    oldest = 0.0 if since is None else max(0.0, (now - since).total_seconds())
    running = session.exec(select(Job).where(Job.status == JobStatus.RUNNING))
    return Figures(jobs, oldest, takeovers, list(running))
