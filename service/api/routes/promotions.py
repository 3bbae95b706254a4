"""Names that runs are served by: give one, list them, ask who has one."""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Response

from service.api import examples
from service.api.dependencies import (
    After,
    Ctx,
    KeyHeader,
    Limit,
    Who,
    hash_of,
    idempotency_key,
)
from service.api.json_body import JsonRoute
from service.api.problems import READS, WRITES
from service.api.schemas.base import Page, page
from service.api.schemas.promotions import PromotionView
from service.domain.release import PromotionRequest
from service.store import promotions as rows
from service.usecases import promotions as use_cases

router = APIRouter(tags=["releases"], route_class=JsonRoute)


@router.post(
    "/v1/runs/{run_id}/promote",
    status_code=201,
    responses={
        **WRITES,
        409: {
            **WRITES[409],
            "description": "The run has not succeeded; or (urn:fairtune:not-releasable) its "
            "certifying report does not pass, and `hindrances` says of each cap and of min_f1 why.",
        },
        200: {
            "model": PromotionView,
            "description": "The run has the name already, or an earlier request with this "
            "Idempotency-Key gave it.",
        },
    },
)
def promote_run(
    context: Ctx,
    who: Who,
    run_id: str,
    body: Annotated[PromotionRequest, Body(openapi_examples=examples.PROMOTIONS)],
    response: Response,
    key: KeyHeader = None,
) -> PromotionView:
    """Give the run the name `name@stage`, and take it from the run that has it.

    Only where the certifying report passes: every cap that applies, and min_f1, where they were
    asked for; or with an override, which is kept with its reason and with what it overrode.
    """
    request_key = idempotency_key(
        who, f"POST /v1/runs/{run_id}/promote", key, hash_of(body.model_dump(mode="json"))
    )
    row, made = use_cases.promote(context, run_id, body, request_key, by=who.name)
    if not made:
        response.status_code = 200
    return PromotionView.of(row)


@router.get("/v1/promotions", responses=READS)
def list_promotions(
    context: Ctx,
    limit: Limit = 20,
    after: After = None,
    name: Annotated[str | None, Query(description="Of exactly this name.")] = None,
    stage: Annotated[str | None, Query(description="Of exactly this stage.")] = None,
) -> Page[PromotionView]:
    """Every promotion there was, newest first; of each name and stage one is current."""
    with context.database.read() as session:
        found, more = rows.page(session, limit=limit, after=after, name=name, stage=stage)
    views = [PromotionView.of(row) for row in found]
    return page(views, views[-1].id if views else None, more=more)


@router.get("/v1/promotions/{name}/{stage}", responses=READS)
def get_promotion(context: Ctx, name: str, stage: str) -> PromotionView:
    """Which run has the name now."""
    with context.database.read() as session:
        return PromotionView.of(rows.get_current(session, name, stage))
