"""Jobs: claims, leases, and the one function that changes a status."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, delete, exists, update
from sqlmodel import Session, col, select

from service.domain.errors import NotFound
from service.domain.ids import new_id
from service.domain.job_kinds import KINDS, JobKind, job_kind, names_in
from service.domain.states import (
    FailureReason,
    JobRequest,
    JobStatus,
    Phase,
    sources_of,
)
from service.domain.task import Task
from service.observability import request_context
from service.store import events
from service.store.database import db_now
from service.store.events import NewEvent
from service.store.tables import Artifact, Event, Job, Run

MAX_ATTEMPTS = 20
MAX_ATTEMPTS_WITHOUT_CHECKPOINT = 3
MAX_QUEUE_POSITION = 1000

_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+")


class Fenced(Exception):
    """The job is no longer this worker's: another claimed it, or a user ended it."""


class Claim(NamedTuple):
    job_id: str
    run_id: str
    kind: JobKind
    token: int
    attempt: int
    request_id: str | None = None
    """Id of the HTTP request that queued the job last."""


def create(
    session: Session,
    run_id: str,
    kind: JobKind,
    *,
    by: str | None = None,
    params: dict[str, Any] | None = None,
) -> Job:
    """Add a queued job with its status event, which names the requester `by` if known."""
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
    session.execute(update(Job).where(col(Job.id) == job.id).values(queued_at=db_now()))
    status = {"status": JobStatus.QUEUED.value, "job_id": job.id, "kind": kind.name}
    if by is not None:
        status["by"] = by
    events.append(session, run_id, job.id, [NewEvent("status", status)])
    return job


def create_succeeded(
    session: Session,
    run_id: str,
    kind: JobKind,
    job_id: str,
    *,
    by: str | None,
    why: dict[str, Any],
) -> Job:
    """Add a job whose result exists already, so that no worker ever sees it, with its event.

    Its files are under the prefix of token 1.
    """
    now = session.execute(select(db_now())).scalar_one()
    job = Job(
        id=job_id,
        run_id=run_id,
        kind=kind.name,
        status=JobStatus.SUCCEEDED,
        token=1,
        phase=Phase.DONE,
        started_at=now,
        finished_at=now,
        request_id=request_context.request_id(),
    )
    session.add(job)
    session.flush()
    status = {"status": JobStatus.SUCCEEDED.value, "job_id": job_id, "kind": kind.name, **why}
    if by is not None:
        status["by"] = by
    events.append(session, run_id, job_id, [NewEvent("status", status)])
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
    expected_token: int | None = None,
    sources: Collection[JobStatus] | None = None,
    why: Mapping[str, Any] | None = None,
    by: str | None = None,
    **values: Any,
) -> bool:
    """Change a job's status, guarded, and write the event in the same transaction.

    Returns True if it changed; False if the job is in none of `sources` (default: every state that
    the state machine allows), or if `expected_token` is not the current token. `values` are further
    columns to set; `why`, and the requester `by`, go into the event. This is the only place that
    writes `status`.
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
        values |= {"queued_at": db_now(), "finished_at": None}
        # If a worker or the sweep returns it to the queue, it still belongs to that request.
        if (request_id := request_context.request_id()) is not None:
            values["request_id"] = request_id
    statement = (
        update(Job)
        .where(col(Job.id) == job.id, col(Job.status).in_(list(allowed)))
        .values(status=to, **values)
    )
    if expected_token is not None:
        statement = statement.where(col(Job.token) == expected_token)
    if not session.execute(statement.returning(col(Job.id))).all():
        return False
    kind = KINDS.get(job.kind)  # None for a kind of a newer version: it can be cancelled
    withdrawn = None if kind is None else kind.withdrawn_path(job.id)
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


def has_queued(session: Session, kinds: Collection[str]) -> bool:
    """Return True if `claim_next` would find a job. Takes no lock."""
    return session.exec(select(Job.id).where(*_claimable(kinds)).limit(1)).first() is not None


def queued_kinds(session: Session) -> set[str]:
    """Return the names of the kinds of the jobs that wait for a worker."""
    return set(session.exec(select(Job.kind).where(*_claimable(KINDS)).distinct()))


def claim_next(
    session: Session, owner: str, lease_seconds: float, kinds: Collection[str]
) -> Claim | None:
    """Claim the oldest queued job of these kinds. None where no job waits.

    On PostgreSQL a job that another worker is claiming is passed over, so that two workers take two
    jobs; on SQLite they claim one after the other.
    """
    oldest = select(Job.id).where(*_claimable(kinds)).order_by(col(Job.queued_at), col(Job.id))
    job_id = session.exec(oldest.limit(1).with_for_update(skip_locked=True)).first()
    return None if job_id is None else claim(session, job_id, owner, lease_seconds)


def _claimable(kinds: Iterable[str]) -> tuple[ColumnElement[bool], ...]:
    """Conditions of a queued job of one of these kinds, whose run is not being deleted."""
    has_run = exists().where(col(Run.id) == col(Job.run_id), col(Run.deleted_at).is_(None))
    is_queued = col(Job.status) == JobStatus.QUEUED
    return is_queued, col(Job.kind).in_(list(kinds)), has_run


def claim(session: Session, job_id: str, owner: str, lease_seconds: float) -> Claim | None:
    """Take a queued job: a lease and a new fencing token. None where it cannot be claimed."""
    job = session.get(Job, job_id)
    if job is None:
        return None
    run = session.get(Run, job.run_id, populate_existing=True)
    if run is None or run.deleted_at is not None:
        return None  # requested while the run was being deleted
    is_claimed = switch_status(
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
        phase_share=None,
        started_at=db_now(),
        failure_reason=None,
        failure_detail=None,
    )
    if not is_claimed:
        return None
    return Claim(job.id, job.run_id, job_kind(job.kind), job.token, job.attempts, job.request_id)


def renew(session: Session, claim: Claim, lease_seconds: float) -> JobRequest | None:
    """Extend the lease, also an expired one while the token is current; return a user's request.

    Raises Fenced if the job is no longer this worker's.
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
    rows = session.execute(statement).all()
    if not rows:
        raise Fenced(claim.job_id)
    request: str | None = rows[0][0]
    return None if request is None else JobRequest(request)


def lock_for_worker(session: Session, claim: Claim) -> Job:
    """Lock the job's row for a write of its worker. Raises Fenced if the token is stale."""
    statement = select(Job).where(
        Job.id == claim.job_id, Job.token == claim.token, Job.status == JobStatus.RUNNING
    )
    job = session.exec(statement.with_for_update()).one_or_none()
    if job is None:
        raise Fenced(claim.job_id)
    return job


def return_to_queue(
    session: Session,
    job: Job,
    token: int,
    reason: FailureReason,
    detail: str,
    *,
    free: bool,
    from_program: bool = False,
) -> JobStatus | None:
    """End an attempt without a result: return the job to the queue, or fail it after too many.

    A pending cancel or pause is honoured instead, in the name of its requester. `free` attempts
    (the worker or run was told to stop) do not count. An `internal` failure that the program
    reported (`from_program`) fails the job as soon as it repeats that of the attempt before. `job`
    must be locked. Returns the new status, or None if the token is stale.
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
        or (from_program and _repeats_last_failure(session, job, reason, detail))
    ):
        to = JobStatus.FAILED
        values = {"failure_reason": reason, "failure_detail": detail}
    if free:
        values |= {
            "attempts": max(0, job.attempts - 1),
            "attempts_since_checkpoint": max(0, job.attempts_since_checkpoint - 1),
        }
    why: dict[str, Any] | None = None
    if to == JobStatus.QUEUED:
        why = {"detail": detail} if free else {"reason": reason.value, "detail": detail}
        if from_program and not free and reason == FailureReason.INTERNAL:
            why |= {"phase": job.phase, "step": job.step}
    by = job.requested_by if to in (JobStatus.CANCELLED, JobStatus.PAUSED) else None
    changed = switch_status(
        session,
        job,
        to,
        expected_token=token,
        sources=(JobStatus.RUNNING,),
        why=why,
        by=by,
        **values,
    )
    return to if changed else None


def _repeats_last_failure(session: Session, job: Job, reason: FailureReason, detail: str) -> bool:
    """Return True if the previous attempt ended as `internal` with this detail at this step.

    Numbers in the detail, such as addresses and names of temporary files, are not compared.
    """
    if reason != FailureReason.INTERNAL:
        return False
    statement = (
        select(Event.data)
        .where(Event.job_id == job.id, Event.run_id == job.run_id, Event.type == "status")
        .order_by(col(Event.number).desc())
        .limit(2)
    )
    # The newest event is the start of this attempt, the one before it the end of the previous.
    for data in session.exec(statement):
        if data.get("status") == JobStatus.QUEUED and data.get("reason") == reason:
            return (data.get("phase"), data.get("step"), _pattern(str(data.get("detail")))) == (
                job.phase,
                job.step,
                _pattern(events.storable(detail)),
            )
    return False


def _pattern(detail: str) -> str:
    return _NUMBERS.sub("#", detail)


def expired(session: Session, limit: int = 100) -> list[tuple[str, int]]:
    """Return running jobs whose lease has expired by the database's clock, with their tokens."""
    statement = select(Job.id, Job.token).where(
        Job.status == JobStatus.RUNNING, col(Job.lease_expires_at) < db_now()
    )
    return list(session.exec(statement.limit(limit)))


def rewrite_expired_lease(session: Session, job_id: str) -> bool:
    """Set an expired lease's expiry to the present: proof that the database takes writes.

    The lease stays expired and its owner may still renew it. The time differs from the one before,
    since SQLite does not write a value that stays the same. Returns False if the lease is not
    expired, or another transaction locks the job: nobody waits for one whose client is suspended.
    """
    expired = select(Job.id).where(
        Job.id == job_id,
        Job.status == JobStatus.RUNNING,
        col(Job.lease_expires_at) < db_now(),
    )
    if session.exec(expired.with_for_update(skip_locked=True)).one_or_none() is None:
        return False
    session.execute(
        update(Job)
        .where(col(Job.id) == job_id)
        .values(lease_expires_at=db_now(-0.001))  # before every later reading of the clock
    )
    return True


def lock_expired(session: Session, job_id: str, token: int) -> Job | None:
    """Lock a job whose lease has expired. None if it has not, or another transaction locks it."""
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


def is_queued(session: Session, job_id: str) -> bool:
    """Return True if the job waits for a worker; False also where it was deleted."""
    statement = select(Job.id).where(Job.id == job_id, Job.status == JobStatus.QUEUED)
    return session.exec(statement).first() is not None


def queue_positions(session: Session, jobs: Iterable[Job]) -> dict[str, int]:
    """Return the position in its queue, 1 being next, by the id of each of `jobs` that waits.

    MAX_QUEUE_POSITION stands for every later one, too: the time does not grow with the queue.
    """
    waiting = {job.id: job_kind(job.kind).queue for job in jobs if job.status == JobStatus.QUEUED}
    positions: dict[str, int] = {}
    for queue in set(waiting.values()):
        head = (
            select(Job.id)
            .where(Job.status == JobStatus.QUEUED, col(Job.kind).in_(names_in([queue])))
            .order_by(col(Job.queued_at), col(Job.id))
            .limit(MAX_QUEUE_POSITION - 1)
        )
        positions |= {job_id: number for number, job_id in enumerate(session.exec(head), 1)}
    return {job_id: positions.get(job_id, MAX_QUEUE_POSITION) for job_id in waiting}


def queue_position(session: Session, job: Job) -> int | None:
    """Return the position of one job, as in `queue_positions`; None if the job does not wait."""
    return queue_positions(session, [job]).get(job.id)
