"""Predictions: what a run's model makes of texts that are sent."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Response
from sqlmodel import Session

from service.api import examples
from service.api.dependencies import (
    After,
    Ctx,
    KeyHeader,
    Limit,
    Who,
    hash_of,
    idempotency_key,
    no_body,
)
from service.api.json_body import JsonRoute
from service.api.problems import READS, WRITES
from service.api.schemas.base import Page, page
from service.api.schemas.jobs import makes
from service.api.schemas.predictions import PredictionsEntry, PredictionsView
from service.context import Context
from service.domain.prediction import PredictionRequest
from service.store import jobs, predictions
from service.store import runs as rows
from service.store.predictions import FoundPrediction
from service.usecases import predictions as use_cases

router = APIRouter(prefix="/v1/runs/{run_id}/predictions", tags=["results"], route_class=JsonRoute)


def view(context: Context, session: Session, found: FoundPrediction) -> PredictionsView:
    position = jobs.queue_position(session, found.job)
    made = use_cases.read(context, found)
    return PredictionsView.of_order(found, found.task, position, predictions=made)


@router.post(
    "",
    status_code=201,
    responses=makes(
        PredictionsView,
        "The predictions",
        "Those that an earlier request with this Idempotency-Key made.",
    ),
)
def submit_predictions(
    context: Ctx,
    who: Who,
    run_id: str,
    response: Response,
    body: Annotated[PredictionRequest, Body(openapi_examples=examples.PREDICTIONS)],
    key: KeyHeader = None,
) -> PredictionsView:
    """Score up to 256 texts with the adapter, a checkpoint or the merged model.

    A job on a queue of its own: a worker that serves it (FAIRTUNE_QUEUES=predictions) answers while
    others train. Poll it under its id. 409 while the run has nothing to predict with.
    """
    route = f"POST /v1/runs/{run_id}/predictions"
    request_key = idempotency_key(who, route, key, hash_of(body.model_dump()))
    found, made = use_cases.submit(context, run_id, body, request_key, by=who.name)
    response.headers["Location"] = f"/v1/runs/{run_id}/predictions/{found.id}"
    if not made:
        response.status_code = 200
    with context.database.read() as session:
        return view(context, session, found)


@router.get("", responses=READS)
def list_predictions(
    context: Ctx, run_id: str, limit: Limit = 20, after: After = None
) -> Page[PredictionsEntry]:
    """Those that were asked for, whatever their state, newest first; without texts and results."""
    with context.database.read() as session:
        rows.get_run(session, run_id)
        found, more = predictions.page(session, run_id, limit=limit, after=after)
        entries = [
            PredictionsEntry.of_order(one, one.order, jobs.queue_position(session, one.job))
            for one in found
        ]
    return page(entries, entries[-1].id if entries else None, more=more)


@router.post("/{prediction_id}/cancel", responses=WRITES, dependencies=[Depends(no_body)])
def cancel_predictions(context: Ctx, who: Who, run_id: str, prediction_id: str) -> PredictionsView:
    """Cancel: queued ones at once, those under way within seconds."""
    found = use_cases.cancel(context, run_id, prediction_id, by=who.name)
    with context.database.read() as session:
        return view(context, session, found)


@router.get("/{prediction_id}", responses=READS)
def get_predictions(context: Ctx, run_id: str, prediction_id: str) -> PredictionsView:
    """Where they stand, and once they are there each text's label, score and probabilities."""
    with context.database.read() as session:
        rows.get_run(session, run_id)
        found = predictions.find(session, run_id, prediction_id)
        return view(context, session, found)
