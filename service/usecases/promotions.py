"""Use cases: promote a run to a name, if its certifying report allows it; withdraw the name."""

import structlog
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
from service.usecases.create_once import create_once
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
    """Give the run the name `name@stage`, which the run that has it loses.

    Returns the promotion, and True if it is new: False if the key was used before, or the run has
    the name already. Raises NotFound, Conflict if the run has not succeeded, and NotReleasable if
    its certifying report does not pass and there is no override.
    """
    with context.database.read() as session:
        if (existing := idempotency.recall(session, key)) is not None:
            return promotions.get(session, existing), False
        run, job = rows.get_run(session, run_id)
        artifact = rows.find_artifact(session, run_id, BIAS_REPORT_FILE)
    if job.status != JobStatus.SUCCEEDED:
        raise Conflict(f"the run is {job.status}; only a succeeded run can be promoted")
    # The report of a succeeded run never changes, so it is read outside the lock.
    certificate = None if artifact is None else certifying.read(context.store, artifact)
    hindering = certifying.hindrances(certificate, is_imported=run.imported is not None)
    override = request.override
    if hindering and override is None:
        raise NotReleasable(_refusal(request, hindering), hindering)
    promotion = Promotion(
        id="",  # assigned under the lock, so that ids sort in the order of the promotions
        project_id=DEFAULT_PROJECT,
        name=request.name,
        stage=request.stage,
        run_id=run_id,
        report_sha256=None if certificate is None else certificate.sha256,
        override_reason=None if override is None else override.reason,
        overrode=[hindrance.model_dump(mode="json") for hindrance in hindering],
        created_by=by,
    )
    promotion_id, created = create_once(
        context.database, key, lambda session: _record(session, promotion, job.id)
    )
    is_new = created and promotion_id == promotion.id
    if is_new:
        log.info("run promoted", run_id=run_id, name=request.name, stage=request.stage, by=by)
    with context.database.read() as session:
        return promotions.get(session, promotion_id), is_new


def withdraw(context: Context, name: str, stage: str, *, by: str | None = None) -> Promotion:
    """Take the name `name@stage` from its run; the promotion stays in the list, with an event.

    Raises NotFound if no run has the name.
    """
    with context.database.write() as session:
        projects.lock(session)
        promotion = promotions.get_current(session, name, stage)
        promotions.withdraw(session, promotion, by)
        promotion_id, run_id = promotion.id, promotion.run_id
        _, job = rows.get_run(session, run_id)
        data = {"name": name, "stage": stage, "promotion_id": promotion_id}
        data |= {} if by is None else {"by": by}
        events.append(session, run_id, job.id, [NewEvent("withdrawn", data)])
    log.info("promotion withdrawn", run_id=run_id, name=name, stage=stage, by=by)
    with context.database.read() as session:
        return promotions.get(session, promotion_id)


def _record(session: Session, promotion: Promotion, job_id: str) -> str:
    """Store `promotion` unless its run has the name already; return the current one's id."""
    projects.lock(session)
    before = promotions.current(session, promotion.name, promotion.stage)
    if before is not None and before.run_id == promotion.run_id:
        return before.id
    if before is not None:
        promotions.supersede(session, before)
    promotion.id = new_id("promo")
    session.add(promotion)
    session.flush()
    data = {
        "name": promotion.name,
        "stage": promotion.stage,
        "promotion_id": promotion.id,
        "report_sha256": promotion.report_sha256,
        "override_reason": promotion.override_reason,
        "supersedes": None if before is None else before.run_id,
    }
    if promotion.created_by is not None:
        data["by"] = promotion.created_by
    events.append(session, promotion.run_id, job_id, [NewEvent("promoted", data)])
    return promotion.id


def _refusal(request: PromotionRequest, hindering: list[Hindrance]) -> str:
    details = "; ".join(hindrance.detail for hindrance in hindering)
    return (
        f"the run is not promoted to {request.name}@{request.stage}: {details}. To promote it "
        'anyway, send "override": {"reason": "…"}, which is stored with the promotion'
    )
