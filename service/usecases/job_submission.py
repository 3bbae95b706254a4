"""Submission of jobs: stored once for each Idempotency-Key, then announced to the workers."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import structlog
from sqlmodel import Session

from service.context import Context
from service.domain.errors import Unavailable
from service.domain.job_kinds import job_kind
from service.queue import celery_app
from service.store import runs as rows
from service.store.idempotency import IdempotencyKey
from service.store.tables import Job, Run
from service.usecases.create_once import create_once

log = structlog.get_logger()
Resource = TypeVar("Resource")


class ResultHandle(NamedTuple):
    """The resource that a job produces, and the job if it is new."""

    id: str
    job: Job | None
    """None if the requested resource exists already, or is in progress."""


def submit(
    context: Context,
    run_id: str,
    key: IdempotencyKey | None,
    find: Callable[[Session, str, str], Resource],
    create: Callable[[Session, Run, Job], ResultHandle],
) -> tuple[Resource, bool]:
    """Add the job that `create` makes, and return its resource and True if it is new.

    `find` returns a resource by the run's id and its own. Raises NotFound, also for a run that is
    being deleted, and what `create` raises.
    """
    job: Job | None = None
    resource: Resource | None = None

    def lock_run(session: Session) -> None:
        run, _ = rows.get_run(session, run_id)
        rows.lock(session, run)

    def create_job(session: Session) -> str:
        nonlocal job, resource
        handle = create(session, *rows.get_run(session, run_id))
        job = handle.job
        # Read before the commit: the run may be deleted as soon as it is unlocked.
        if job is not None:
            session.flush()
            session.refresh(job)  # with what the database computes
        resource = find(session, run_id, handle.id)
        return handle.id

    result_id, is_created = create_once(context.database, key, create_job, lock_run)
    if is_created and resource is not None:
        if job is not None:
            announce(context, job)
        return resource, job is not None
    with context.database.read() as session:
        rows.get_run(session, run_id)
        return find(session, run_id, result_id), False


def announce(context: Context, job: Job) -> None:
    """Send a queue message for a queued job, after the commit that queued it.

    While the broker is unreachable, an idle worker finds the job without a message.
    """
    log.info("job queued", run_id=job.run_id, job_id=job.id)
    with contextlib.suppress(Unavailable):
        celery_app.notify(context.celery, job_kind(job.kind).queue)
