"""Predictions of a run's model for submitted texts."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Response
from sqlmodel import Session

from service.api import examples
from service.api.dependencies import (
    AfterPrediction,
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
from service.api.openapi import READS, WRITES, creates_job, documented
from service.api.responses.created import set_created
from service.api.schemas.base import Page, page
from service.api.schemas.predictions import PredictionsEntry, PredictionsView
from service.context import Context
from service.domain.errors import Conflict
from service.domain.prediction import PredictionRequest
from service.store import jobs, predictions
from service.store import runs as run_rows
from service.store.predictions import StoredPrediction
from service.usecases import predictions as use_cases

router = APIRouter(prefix="/v1/runs/{run_id}/predictions", tags=["results"], route_class=JsonRoute)
PredictionId = Annotated[str, Path(description="Identifier of the predictions.")]


def view(context: Context, session: Session, prediction: StoredPrediction) -> PredictionsView:
    position = jobs.queue_position(session, prediction.job)
    results = use_cases.read(context, prediction)
    return PredictionsView.of_order(prediction, prediction.task, position, predictions=results)


@router.post(
    "",
    status_code=201,
    responses=creates_job(
        PredictionsView,
        "The queued predictions.",
        "The predictions created by an earlier request with the same Idempotency-Key.",
    ),
    summary="Classify texts",
)
def submit_predictions(
    context: Ctx,
    who: Who,
    run_id: RunId,
    response: Response,
    body: Annotated[PredictionRequest, Body(openapi_examples=examples.PREDICTIONS)],
    key: KeyHeader = None,
) -> PredictionsView:
    """Classify up to 256 texts with the adapter, a checkpoint or the merged model.

    Predictions are jobs on a separate queue: a worker that serves only it
    (FAIRTUNE_QUEUES=predictions) answers while others train. Answers 409 if the requested model
    does not exist yet.
    """
    route = f"POST /v1/runs/{run_id}/predictions"
    request_key = idempotency_key(who, route, key, hash_of(body.model_dump()))
    prediction, is_new = use_cases.submit(context, run_id, body, request_key, by=who.name)
    location = f"/v1/runs/{run_id}/predictions/{prediction.id}"
    set_created(response, location, is_new=is_new)
    with context.database.read() as session:
        return view(context, session, prediction)


@router.get("", responses=READS, summary="List the predictions of a run")
def list_predictions(
    context: Ctx, run_id: RunId, limit: Limit = 20, after: AfterPrediction = None
) -> Page[PredictionsEntry]:
    """List prediction jobs in any state, newest first, without their texts and results."""
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        rows, more = predictions.page(session, run_id, limit=limit, after=after)
        positions = jobs.queue_positions(session, [row.job for row in rows])
        entries = [
            PredictionsEntry.of_order(row, row.order, positions.get(row.job.id)) for row in rows
        ]
    return page(entries, more=more)


@router.post(
    "/{prediction_id}/cancel",
    responses=WRITES,
    dependencies=[Depends(no_body)],
    summary="Cancel predictions",
)
def cancel_predictions(
    context: Ctx, who: Who, run_id: RunId, prediction_id: PredictionId
) -> PredictionsView:
    """Cancel predictions: immediately if queued, within seconds if running."""
    prediction = use_cases.cancel(context, run_id, prediction_id, by=who.name)
    with context.database.read() as session:
        return view(context, session, prediction)


@router.get("/{prediction_id}", responses=READS | documented(Conflict), summary="Get predictions")
def get_predictions(context: Ctx, run_id: RunId, prediction_id: PredictionId) -> PredictionsView:
    """Return the state of the predictions and, once succeeded, the result for each text.

    Answers 409 if their stored scores are missing or damaged.
    """
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        prediction = predictions.find(session, run_id, prediction_id)
        return view(context, session, prediction)
