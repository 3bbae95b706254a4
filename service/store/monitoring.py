"""Figures of the load, for a monitoring system."""

from typing import NamedTuple

from sqlalchemy import func
from sqlmodel import Session, col, select

from service.domain.job_kinds import KINDS
from service.domain.states import JobStatus
from service.store.database import db_now
from service.store.tables import Job


class Figures(NamedTuple):
    jobs: dict[tuple[str, JobStatus], int]
    """Number of jobs of every kind and status, 0 included."""
    oldest_queued_seconds: float
    """Age of the oldest queued job by the database's clock; 0 if none is queued."""
    takeovers: int
    running: list[Job]


def figures(session: Session) -> Figures:
    """Read the figures by three short statements; a job may change between them."""
    jobs = {(kind, status): 0 for kind in KINDS for status in JobStatus}
    takeovers = 0
    grouped = select(Job.kind, Job.status, func.count(), func.sum(col(Job.takeovers))).group_by(
        col(Job.kind), col(Job.status)
    )
    for kind, status, count, taken_over in session.exec(grouped):
        jobs[kind, JobStatus(status)] = count
        takeovers += taken_over
    waiting = select(func.min(col(Job.queued_at)), db_now()).where(Job.status == JobStatus.QUEUED)
    since, now = session.exec(waiting).one()
    oldest = 0.0 if since is None else max(0.0, (now - since).total_seconds())
    running = session.exec(select(Job).where(Job.status == JobStatus.RUNNING))
    return Figures(jobs, oldest, takeovers, list(running))
