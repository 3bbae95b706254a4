"""Promotions: assign release names to runs."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Response

from service.api import examples
from service.api.dependencies import (
    AfterPromotion,
    Ctx,
    KeyHeader,
    Limit,
    RunId,
    Who,
    hash_of,
    idempotency_key,
    no_body,
)
from service.api.json_body import JsonRoute
from service.api.openapi import READS, WRITES
from service.api.schemas.base import Page, page
from service.api.schemas.promotions import PromotionView
from service.domain.release import PromotionRequest
from service.store import promotions as promotion_rows
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
            "certifying report does not pass, with every reason in `hindrances`.",
        },
        201: {"description": "The promotion."},
        200: {
            "model": PromotionView,
            "description": "The current promotion of the run under this name, or the one created "
            "by an earlier request with the same Idempotency-Key.",
        },
    },
    summary="Promote a run",
)
def promote_run(
    context: Ctx,
    who: Who,
    run_id: RunId,
    body: Annotated[PromotionRequest, Body(openapi_examples=examples.PROMOTIONS)],
    response: Response,
    key: KeyHeader = None,
) -> PromotionView:
    """Assign the release name `name@stage` to the run, replacing its current holder.

    Requires that the certifying report passes: every applicable cap and, if set, min_f1. An
    `override` promotes the run regardless; its reason and what it overrode are recorded.
    """
    route = f"POST /v1/runs/{run_id}/promote"
    request_key = idempotency_key(who, route, key, hash_of(body.model_dump(mode="json")))
    row, is_new = use_cases.promote(context, run_id, body, request_key, by=who.name)
    if not is_new:
        response.status_code = 200
    return PromotionView.of(row)


@router.get("/v1/promotions", responses=READS, summary="List promotions")
def list_promotions(
    context: Ctx,
    limit: Limit = 20,
    after: AfterPromotion = None,
    name: Annotated[
        str | None, Query(description="Return only promotions under exactly this name.")
    ] = None,
    stage: Annotated[
        str | None, Query(description="Return only promotions to exactly this stage.")
    ] = None,
) -> Page[PromotionView]:
    """List current and past promotions, newest first. Each name and stage has one current run."""
    with context.database.read() as session:
        rows, more = promotion_rows.page(session, limit=limit, after=after, name=name, stage=stage)
    views = [PromotionView.of(row) for row in rows]
    return page(views, more=more)


@router.get("/v1/promotions/{name}/{stage}", responses=READS, summary="Get the promoted run")
def get_promotion(
    context: Ctx,
    name: Annotated[str, Path(description="Release name.")],
    stage: Annotated[str, Path(description="Stage of the release.")],
) -> PromotionView:
    """Return the current promotion of a release name."""
    with context.database.read() as session:
        return PromotionView.of(promotion_rows.get_current(session, name, stage))


@router.delete(
    "/v1/promotions/{name}/{stage}",
    responses=WRITES,
    dependencies=[Depends(no_body)],
    summary="Revoke a promotion",
)
def withdraw_promotion(
    context: Ctx,
    who: Who,
    name: Annotated[str, Path(description="Release name.")],
    stage: Annotated[str, Path(description="Stage of the release.")],
) -> PromotionView:
    """Take the release name from its run without giving it to another.

    The promotion stays in the list with `withdrawn_at`. Answers 404 if no run has the name.
    """
    return PromotionView.of(use_cases.withdraw(context, name, stage, by=who.name))
