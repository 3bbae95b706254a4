"""Use case: give a run a name that others serve by, where its certifying report allows it."""

import structlog
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from service.context import Context
from service.domain.errors import Conflict, NotReleasable
from service.domain.ids import new_id
from service.domain.job import BIAS_REPORT_FILE
from service.domain.release import Hindrance, PromotionRequest
from service.domain.states import JobStatus
from service.store import events, idempotency, projects, promotions
from service.store import runs as rows
from service.store.events import NewEvent
from service.store.idempotency import IdempotencyKey
from service.store.tables import DEFAULT_PROJECT, Promotion
from service.usecases.reports import certifying

log = structlog.get_logger()


def promote(
    context: Context,
    run_id: str,
    request: PromotionRequest,
    key: IdempotencyKey | None = None,
    *,
    by: str | None = None,
) -> tuple[Promotion, bool]:
    """Give the run the name `name@stage`, which is taken from the run that has it.

    Returns the promotion and whether it was made now: False where the key was used before, or the
    run has the name already. Raises NotFound, Conflict where the run has not succeeded, and
    NotReleasable where its certifying report does not pass and no override was given.
    """
    with context.database.read() as session:
        if (known := idempotency.recall(session, key)) is not None:
            return promotions.get(session, known), False
        _, job = rows.get_run(session, run_id)
        artifact = rows.find_artifact(session, run_id, BIAS_REPORT_FILE)
    if job.status != JobStatus.SUCCEEDED:
        raise Conflict(f"the run is {job.status}; only one that has succeeded can be promoted")
    # A run that has succeeded, and so its report, never changes: it is read outside of the lock.
    certificate = None if artifact is None else certifying.read(context.store, artifact)
    hindering = certifying.hindrances(certificate)
    override = request.override
    if hindering and override is None:
        raise NotReleasable(_refusal(request, hindering), hindering)
    promotion = Promotion(
        id="",  # made under the lock: ids sort as the names were given
        project_id=DEFAULT_PROJECT,
        name=request.name,
        stage=request.stage,
        run_id=run_id,
        report_sha256=None if certificate is None else certificate.sha256,
        override_reason=None if override is None else override.reason,
        overrode=[one.model_dump(mode="json") for one in hindering],
        created_by=by,
    )
    try:
        with context.database.write() as session:
            made = _record(session, promotion, job.id, key)
    except IntegrityError:
        # The same key at the same time: the other request was first.
        with context.database.read() as session:
            known = idempotency.recall(session, key)
            if known is None:
                raise
            return promotions.get(session, known), False
    if made is promotion:
        log.info("run promoted", run_id=run_id, name=request.name, stage=request.stage, by=by)
    with context.database.read() as session:
        return promotions.get(session, made.id), made is promotion


def _record(
    session: Session, promotion: Promotion, job_id: str, key: IdempotencyKey | None
) -> Promotion:
    """Store `promotion`, unless its run has the name already; return the one that stands."""
    projects.lock(session)
    before = promotions.current(session, promotion.name, promotion.stage)
    if before is not None and before.run_id == promotion.run_id:
        idempotency.remember(session, key, before.id)
        return before
    if before is not None:
        promotions.supersede(session, before)
    promotion.id = new_id("promo")
    session.add(promotion)
    idempotency.remember(session, key, promotion.id)
    session.flush()
    said = {
        "name": promotion.name,
        "stage": promotion.stage,
        "promotion_id": promotion.id,
        "report_sha256": promotion.report_sha256,
        "override_reason": promotion.override_reason,
        "supersedes": None if before is None else before.run_id,
    }
    if promotion.created_by is not None:
        said["by"] = promotion.created_by
    events.append(session, promotion.run_id, job_id, [NewEvent("promoted", said)])
    return promotion


def _refusal(request: PromotionRequest, hindering: list[Hindrance]) -> str:
    found = "; ".join(one.detail for one in hindering)
    return (
        f"{request.name}@{request.stage} is not given to the run: {found}. To promote it all the "
        'same, send "override": {"reason": "…"}, which is kept with the promotion'
    )
