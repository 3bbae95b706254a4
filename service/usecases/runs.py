"""Use cases: submit a run, clone one."""

from collections.abc import Callable
from typing import Any

from sqlmodel import Session

from service.context import Context
from service.domain.errors import InvalidRequest, NotFound
from service.domain.ids import new_id
from service.domain.job_kinds import TRAIN
from service.domain.spec import RunSpec
from service.store import datasets, jobs
from service.store import runs as rows
from service.store.idempotency import IdempotencyKey
from service.store.tables import DEFAULT_PROJECT, Job, Run
from service.usecases.create_once import create_once
from service.usecases.job_submission import announce
from service.usecases.retention import check_quota
from service.usecases.run_plan import resolve, resolve_clone


def submit(
    context: Context,
    body: dict[str, Any],
    key: IdempotencyKey | None = None,
    *,
    by: str | None = None,
) -> tuple[Run, Job, bool]:
    """Store the run with its queued job in one commit, then send a queue message.

    Returns the run, its job, and True if the run is new (False: the key was used before). `by` is
    the name of the caller's API key. Raises InvalidRequest, QuotaExceeded.
    """
    return _create(context, key, by, None, lambda session: resolve(context, session, body)[0])


def clone(
    context: Context,
    run_id: str,
    changes: dict[str, Any],
    key: IdempotencyKey | None = None,
    *,
    by: str | None = None,
) -> tuple[Run, Job, bool]:
    """Submit a run with the specification of another one and `changes` merged into it.

    Raises NotFound, InvalidRequest, QuotaExceeded.
    """
    return _create(
        context,
        key,
        by,
        run_id,
        lambda session: resolve_clone(context, session, run_id, changes)[0],
    )


def _create(
    context: Context,
    key: IdempotencyKey | None,
    by: str | None,
    cloned_from: str | None,
    specify: Callable[[Session], RunSpec],
) -> tuple[Run, Job, bool]:
    """Store a run with the specification that `specify` returns, unless `key` created one."""

    def create(session: Session) -> str:
        check_quota(context)
        spec = specify(session)
        run = Run(
            id=new_id("run"),
            project_id=DEFAULT_PROJECT,
            name=spec.name or "",
            preset=spec.preset,
            base_model=spec.base_model,
            dataset_id=spec.dataset_id,
            spec=spec.model_dump(mode="json"),
            tags=list(spec.tags),
            cloned_from=cloned_from,
            created_by=by,
        )
        _hold(session, spec.dataset_id)
        session.add(run)
        session.flush()
        jobs.create(session, run.id, TRAIN, by=by)
        return run.id

    run_id, is_new = create_once(context.database, key, create)
    with context.database.read() as session:
        run, job = rows.get_run(session, run_id)
    if is_new:
        announce(context, job)
    return run, job, is_new


def _hold(session: Session, dataset_id: str) -> None:
    """Keep the dataset from being deleted until the run refers to it. Raises InvalidRequest."""
    try:
        datasets.hold(session, dataset_id)
    except NotFound as error:
        raise InvalidRequest.at("/dataset_id", error.detail) from error
