"""Predictions: what a run's model makes of texts that are sent."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Response
from pydantic import Field
from sqlmodel import Session

from service import predicting as use_cases
from service.api import examples
from service.api.dependencies import Ctx, KeyHeader, Who, hash_of, idempotency_key, no_body
from service.api.json_body import JsonRoute
from service.api.problems import READS, WRITES
from service.api.schemas import Failure, View, percent
from service.context import Context
from service.domain.prediction import Prediction, PredictionRequest
from service.domain.states import JobStatus
from service.store import jobs, predictions
from service.store import runs as rows
from service.store.predictions import FoundPrediction

router = APIRouter(prefix="/v1/runs/{run_id}/predictions", tags=["results"], route_class=JsonRoute)


class PredictionsView(View):
    id: str
    job_id: str
    target: str = Field(description="adapter, checkpoint or merged")
    step: int = Field(description="Optimizer step of the weights.")
    merge_id: str | None = Field(description="The merge whose model it is, for the target merged.")
    template: str
    positive_label: str
    threshold: float | None = Field(
        description="A text is called positive when its score is at least this; null: the most "
        "probable label (argmax)."
    )
    status: JobStatus
    phase: str
    percent: float = Field(description="Of the texts, 0 to 100.")
    queue_position: int | None = Field(
        description="1 is next, among predictions; null when not queued."
    )
    predictions: list[Prediction] | None = Field(
        description="One for each text, in their order; null before they are there."
    )
    failure: Failure | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def view(context: Context, session: Session, found: FoundPrediction) -> PredictionsView:
    job, task = found.job, found.task
    return PredictionsView(
        id=found.id,
        job_id=job.id,
        target=task.target,
        step=task.step,
        merge_id=task.merge,
        template=task.template,
        positive_label=task.positive_label,
        threshold=task.threshold,
        status=JobStatus(job.status),
        phase=job.phase,
        percent=100.0 if job.status == JobStatus.SUCCEEDED else percent(job),
        queue_position=jobs.queue_position(session, job),
        predictions=use_cases.read(context, found),
        failure=Failure.of(job),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


@router.post(
    "",
    status_code=201,
    responses={
        **WRITES,
        201: {
            "model": PredictionsView,
            "description": "The predictions, queued.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        200: {
            "model": PredictionsView,
            "description": "Those that an earlier request with this Idempotency-Key made.",
        },
    },
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
