"""Jobs: who may work on one, and the one function that changes a status."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, case, delete, func, or_, update
from sqlmodel import Session, col, select

from service.domain.errors import NotFound
from service.domain.ids import new_id
from service.domain.job_kinds import JobKind, job_kind, names_in
from service.domain.states import (
    FailureReason,
    JobRequest,
    JobStatus,
    sources_of,
)
from service.domain.task import Task
from service.observability import request_context
from service.store import events
from service.store.database import db_now
from service.store.events import NewEvent
from service.store.tables import Artifact, Job, Run

MAX_ATTEMPTS = 20
MAX_ATTEMPTS_WITHOUT_CHECKPOINT = 3

# Of the wait before a wake-up is sent again.
_DOUBLINGS = 5
_LONGEST_WAIT = 600.0


class Fenced(Exception):
    """The job is no longer this worker's: another claimed it, or a user ended it."""


class Claim(NamedTuple):
    job_id: str
    run_id: str
    kind: JobKind
    token: int
    attempt: int
    request_id: str | None = None
    """The HTTP request that queued the job last."""


def create(
    session: Session,
    run_id: str,
    kind: JobKind,
    *,
    by: str | None = None,
    params: dict[str, Any] | None = None,
) -> Job:
    """A queued job, with the event that says so, and who asked for it where that is known."""
    job = Job(
        id=new_id("job"),
        run_id=run_id,
        kind=kind.name,
        params=params or {},
        status=JobStatus.QUEUED,
        request_id=request_context.request_id(),
    )
    session.add(job)
    session.flush()
    session.execute(
        update(Job).where(col(Job.id) == job.id).values(queued_at=db_now(), enqueued_at=db_now())
    )
    status = {"status": JobStatus.QUEUED.value, "job_id": job.id, "kind": kind.name}
    if by is not None:
        status["by"] = by
    events.append(session, run_id, job.id, [NewEvent("status", status)])
    return job


def get(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def task_of(job: Job) -> Task | None:
    """Return the parameters of a job; None for one that its run's specification says all of."""
    return job_kind(job.kind).task(job.params)


def switch_status(
    session: Session,
    job: Job,
    to: JobStatus,
    *,
    held_token: int | None = None,
    sources: Collection[JobStatus] | None = None,
    why: Mapping[str, str] | None = None,
    by: str | None = None,
    **values: Any,
) -> bool:
    """Change a job's status, guarded, and write the event in the same transaction.

    Returns whether it changed: False where the job is in none of `sources` (default: every state
    that the state machine allows), or where `held_token` is given and no longer stands. `values`
    are further columns to set; `why`, and `by` (who asked for it), go into the event. This is the
    only place that writes `status`.
    """
    allowed = sources_of(to) if sources is None else sources_of(to) & set(sources)
    if values.get("failure_detail"):
        values["failure_detail"] = events.storable(values["failure_detail"])
    if to in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED):
        values.setdefault("finished_at", db_now())
    if to != JobStatus.RUNNING:
        values |= {"owner": None, "lease_expires_at": None, "eta_seconds": None}
        values |= {"request": None, "requested_by": None}
    if to == JobStatus.QUEUED:
        # Not woken for yet: whoever commits this may do so, and else the next sweep will.
        values |= {"queued_at": db_now(), "enqueued_at": None, "resent": 0, "finished_at": None}
        # Where a worker or the sweep gives it back, it is still that request's job.
        if (request_id := request_context.request_id()) is not None:
            values["request_id"] = request_id
    statement = (
        update(Job)
        .where(col(Job.id) == job.id, col(Job.status).in_(list(allowed)))
        .values(status=to, **values)
    )
    if held_token is not None:
        statement = statement.where(col(Job.token) == held_token)
    if not session.execute(statement.returning(col(Job.id))).all():
        return False
    withdrawn = job_kind(job.kind).withdrawn_path(job.id)
    if withdrawn is not None and to in (JobStatus.FAILED, JobStatus.CANCELLED):
        # Its worker was lost after the files became visible: without success there are none.
        session.execute(
            delete(Artifact).where(
                col(Artifact.run_id) == job.run_id,
                col(Artifact.path).startswith(withdrawn, autoescape=True),
            )
        )
    data: dict[str, Any] = {"status": to.value, "job_id": job.id, "kind": job.kind}
    data |= why or {}
    if by is not None:
        data["by"] = by
    if to == JobStatus.FAILED:
        data |= {"reason": values["failure_reason"], "detail": values["failure_detail"]}
    events.append(session, job.run_id, job.id, [NewEvent("status", data)])
    session.refresh(job)
    return True


def claim(
    session: Session,
    job_id: str,
    owner: str,
    lease_seconds: float,
    kinds: Collection[str] | None = None,
) -> Claim | None:
    """Take a queued job of one of these kinds (None: any): a lease and a new fencing token. None
    where it is not to be had.
    """
    job = session.get(Job, job_id)
    if job is None or (kinds is not None and job.kind not in kinds):
        return None
    run = session.get(Run, job.run_id, populate_existing=True)
    if run is None or run.deleted_at is not None:
        return None  # asked for while the run was being deleted
    taken = switch_status(
        session,
        job,
        JobStatus.RUNNING,
        owner=owner,
        token=col(Job.token) + 1,
        lease_expires_at=db_now(lease_seconds),
        attempts=col(Job.attempts) + 1,
        attempts_since_checkpoint=col(Job.attempts_since_checkpoint) + 1,
        shipped_seq=0,
        gpu_memory_bytes=None,
        phase="starting",
        started_at=db_now(),
        failure_reason=None,
        failure_detail=None,
    )
    if not taken:
        return None
    return Claim(job.id, job.run_id, job_kind(job.kind), job.token, job.attempts, job.request_id)


def renew(session: Session, claim: Claim, lease_seconds: float) -> JobRequest | None:
    """Extend the lease, an expired one too while the token stands; return what was asked.

    Raises Fenced where the job is no longer this worker's.
    """
    statement = (
        update(Job)
        .where(
            col(Job.id) == claim.job_id,
            col(Job.token) == claim.token,
            col(Job.status) == JobStatus.RUNNING,
        )
        .values(lease_expires_at=db_now(lease_seconds))
        .returning(col(Job.request))
    )
    found = session.execute(statement).all()
    if not found:
        raise Fenced(claim.job_id)
    request: str | None = found[0][0]
    return None if request is None else JobRequest(request)


def hold(session: Session, claim: Claim) -> Job:
    """Lock the job's row for a write of its worker's. Raises Fenced where the token is stale."""
    statement = select(Job).where(
        Job.id == claim.job_id, Job.token == claim.token, Job.status == JobStatus.RUNNING
    )
    job = session.exec(statement.with_for_update()).one_or_none()
    if job is None:
        raise Fenced(claim.job_id)
    return job


def give_back(
    session: Session, job: Job, token: int, reason: FailureReason, detail: str, *, free: bool
) -> JobStatus | None:
    """End an attempt that came to nothing: back to the queue, or failed where too many did.

    A pending cancel or pause is honoured instead, in the name of who asked for it. `free` attempts
    (a worker or a run that was told to stop) do not count. `job` is locked. Returns the new
    status, or None where the token no longer stands.
    """
    values: dict[str, Any] = {}
    to = JobStatus.QUEUED
    if job.request == JobRequest.CANCEL:
        to = JobStatus.CANCELLED
    elif job.request == JobRequest.PAUSE:
        to = JobStatus.PAUSED
    elif not free and (
        job.attempts >= MAX_ATTEMPTS
        or job.attempts_since_checkpoint >= MAX_ATTEMPTS_WITHOUT_CHECKPOINT
    ):
        to = JobStatus.FAILED
        values = {"failure_reason": reason, "failure_detail": detail}
    if free:
        values |= {
            "attempts": max(0, job.attempts - 1),
            "attempts_since_checkpoint": max(0, job.attempts_since_checkpoint - 1),
        }
    why = None
    if to == JobStatus.QUEUED:
        why = {"detail": detail} if free else {"reason": reason.value, "detail": detail}
    by = job.requested_by if to in (JobStatus.CANCELLED, JobStatus.PAUSED) else None
    changed = switch_status(
        session, job, to, held_token=token, sources=(JobStatus.RUNNING,), why=why, by=by, **values
    )
    return to if changed else None


def unclaimed(session: Session, older_than: float, limit: int = 100) -> list[str]:
    """Queued jobs whose last wake-up is `older_than` seconds ago; marks them as woken anew.

    Twice as long ago with each that was sent again, up to ten minutes: in a queue that nobody
    serves wake-ups stay, and would pile up. Which of them was lost nobody knows (see `hurry`).
    """
    is_first = col(Job.enqueued_at).is_(None)
    overdue: list[ColumnElement[bool]] = [is_first]
    for times in range(_DOUBLINGS + 1):
        wait = max(older_than, min(older_than * 2**times, _LONGEST_WAIT))
        so_often = col(Job.resent) == times if times < _DOUBLINGS else col(Job.resent) >= times
        overdue.append(and_(so_often, col(Job.enqueued_at) < db_now(-wait)))
    waiting = select(Job.id).where(Job.status == JobStatus.QUEUED, or_(*overdue))
    statement = (
        update(Job)
        .where(
            # Those that were never woken for, and then the longest ago, so that none is left out.
            col(Job.id).in_(waiting.order_by(col(Job.enqueued_at).nulls_first()).limit(limit)),
            col(Job.status) == JobStatus.QUEUED,
        )
        .values(
            enqueued_at=db_now(),
            resent=case((is_first, col(Job.resent)), else_=col(Job.resent) + 1),
        )
        .returning(col(Job.id))
    )
    return [row[0] for row in session.execute(statement).all()]


def hurry(session: Session, kinds: Collection[str]) -> None:
    """Have wake-ups for waiting jobs of these kinds sent again as soon as at first."""
    statement = update(Job).where(
        col(Job.status) == JobStatus.QUEUED, col(Job.kind).in_(list(kinds)), col(Job.resent) > 0
    )
    session.execute(statement.values(resent=0))


def expired(session: Session, limit: int = 100) -> list[tuple[str, int]]:
    """Running jobs whose lease has run out by the database's clock, with their tokens."""
    statement = select(Job.id, Job.token).where(
        Job.status == JobStatus.RUNNING, col(Job.lease_expires_at) < db_now()
    )
    return list(session.exec(statement.limit(limit)))


def touch(session: Session, job_id: str) -> None:
    """Write something into a running job's row: proof that the database takes writes.

    A time that means nothing while it runs; SQLite does not write what is the same.
    """
    session.execute(
        update(Job)
        .where(col(Job.id) == job_id, col(Job.status) == JobStatus.RUNNING)
        .values(enqueued_at=db_now())
    )


def hold_expired(session: Session, job_id: str, token: int) -> Job | None:
    """Lock a job whose lease has run out. None where it has not, or another has it locked."""
    statement = (
        select(Job)
        .where(
            Job.id == job_id,
            Job.token == token,
            Job.status == JobStatus.RUNNING,
            col(Job.lease_expires_at) < db_now(),
        )
        .with_for_update(skip_locked=True)
    )
    return session.exec(statement).one_or_none()


def woken(session: Session, job_id: str) -> None:
    """Note that a wake-up is being sent, so that the sweep sends none beside it."""
    session.execute(update(Job).where(col(Job.id) == job_id).values(enqueued_at=db_now()))


def not_woken(session: Session, job_id: str) -> None:
    """Take back that a wake-up was sent: the broker was away, and may have lost those before."""
    session.execute(update(Job).where(col(Job.id) == job_id).values(enqueued_at=None, resent=0))


def kinds_of(session: Session, job_ids: Collection[str]) -> dict[str, str]:
    return dict(session.exec(select(Job.id, Job.kind).where(col(Job.id).in_(job_ids))).all())


def queue_position(session: Session, job: Job) -> int | None:
    """1 for the job that waits longest in its queue; None where the job does not wait."""
    if job.status != JobStatus.QUEUED:
        return None
    rivals = names_in([job_kind(job.kind).queue])
    ahead = select(func.count()).where(
        Job.status == JobStatus.QUEUED,
        col(Job.queued_at) < job.queued_at,
        col(Job.kind).in_(rivals),
    )
    return session.exec(ahead).one() + 1
