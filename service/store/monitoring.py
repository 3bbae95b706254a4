"""Figures of the load, for a monitoring system."""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import func
from sqlmodel import Session, col, select

from service.domain.job_kinds import KINDS
from service.domain.states import RESTING, JobStatus
from service.store.database import db_now
from service.store.tables import Job

JobCounts = dict[tuple[str, JobStatus], int]


class Figures(NamedTuple):
    """Figures that are as quick to read however many jobs have ended."""

    unfinished: JobCounts
    """Number of jobs of every kind that have not ended, by status, 0 included."""
    oldest_queued_seconds: float
    """Age of the oldest queued job by the database's clock; 0 if none is queued."""
    takeovers: int
    running: list[Job]


def figures(session: Session) -> Figures:
    """Read the figures by short statements; a job may change between them."""
    unfinished = _counts(session, set(JobStatus) - RESTING)
    lost = select(func.coalesce(func.sum(col(Job.takeovers)), 0)).where(col(Job.takeovers) > 0)
    takeovers = int(session.exec(lost).one())
    waiting = select(func.min(col(Job.queued_at)), db_now()).where(Job.status == JobStatus.QUEUED)
    since, now = session.exec(waiting).one()
    oldest = 0.0 if since is None else max(0.0, (now - since).total_seconds())
    running = session.exec(select(Job).where(Job.status == JobStatus.RUNNING))
    return Figures(unfinished, oldest, takeovers, list(running))


def ended(session: Session) -> JobCounts:
    """Return the number of jobs of every kind that have ended, by status, 0 included.

    Reads an entry of an index for each of them.
    """
    return _counts(session, RESTING)


def _counts(session: Session, statuses: Collection[JobStatus]) -> JobCounts:
    counts = {(kind, status): 0 for kind in KINDS for status in statuses}
    grouped = (
        select(Job.kind, Job.status, func.count())
        .where(col(Job.status).in_(list(statuses)))
        .group_by(col(Job.kind), col(Job.status))
    )
    for kind, status, count in session.exec(grouped):
        counts[kind, JobStatus(status)] = count
    return counts
