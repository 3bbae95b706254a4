"""A job asked for on a run: stored once for each Idempotency-Key, then a queue message."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import structlog
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from service.context import Context
from service.domain.errors import Unavailable
from service.domain.job_kinds import job_kind
from service.queue import celery_app
from service.store import idempotency
from service.store import runs as rows
from service.store.idempotency import IdempotencyKey
from service.store.tables import Job, Run

log = structlog.get_logger()
Found = TypeVar("Found")


class Order(NamedTuple):
    id: str
    """Of what the job makes, known before it is made."""
    job: Job | None
    """None where what is asked for is there already, or under way."""


def submit(
    context: Context,
    run_id: str,
    key: IdempotencyKey | None,
    find: Callable[[Session, str, str], Found],
    create: Callable[[Session, Run, Job], Order],
) -> tuple[Found, bool]:
    """Have `create` add the job, in one commit with the key; return it and whether it is new.

    `find` looks up what was made by the run's id and its own. Of two requests at once the second
    finds what the first one stored. Raises NotFound, also for a run that is being deleted, and what
    `create` raises.
    """
    try:
        with context.database.write() as session:
            run, trained = rows.get_run(session, run_id)
            rows.lock(session, run)
            known = idempotency.recall(session, key)
            if known is not None:
                return find(session, run_id, known), False
            order = create(session, run, trained)
            idempotency.remember(session, key, order.id)
    except IntegrityError:
        # The same key at the same time: the other request was first.
        with context.database.read() as session:
            made = idempotency.recall(session, key)
            if made is None:
                raise
            return find(session, run_id, made), False
    if (job := order.job) is not None:
        log.info("job queued", run_id=run_id, job_id=job.id)
        with contextlib.suppress(Unavailable):
            celery_app.notify(context.celery, job_kind(job.kind).queue)
    with context.database.read() as session:
        return find(session, run_id, order.id), job is not None
