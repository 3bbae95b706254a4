"""Evaluations: a model's predictions on a split, made by a run or requested later."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Response
from sqlmodel import Session

from service.api import examples
from service.api.dependencies import (
    AfterEvaluation,
    Ctx,
    KeyHeader,
    Limit,
    Redirect,
    RunId,
    Tail,
    Who,
    hash_of,
    idempotency_key,
    no_body,
)
from service.api.json_body import JsonRoute
from service.api.openapi import LOG, PREDICTIONS_FILE, READS, WRITES, creates_job
from service.api.responses.created import set_created
from service.api.responses.files import file_response
from service.api.responses.logs import log_response
from service.api.schemas.base import Page, page
from service.api.schemas.evaluations import EvaluationView
from service.artifacts import StoredFile
from service.domain.errors import NotFound
from service.domain.evaluation import EvaluationRequest
from service.domain.job_kinds import EVALUATE
from service.store import evaluations, jobs
from service.store import runs as run_rows
from service.store.evaluations import StoredEvaluation
from service.usecases import evaluations as use_cases

router = APIRouter(prefix="/v1/runs/{run_id}/evaluations", tags=["results"], route_class=JsonRoute)
_DEFAULTS = EvaluationRequest()  # type: ignore[call-arg]  # every field has a default
EvalId = Annotated[str, Path(description="Identifier of the evaluation.")]


def view(session: Session, evaluation: StoredEvaluation) -> EvaluationView:
    return EvaluationView.of(evaluation, jobs.queue_position(session, evaluation.job))


@router.post(
    "",
    status_code=201,
    responses=creates_job(
        EvaluationView,
        "The queued evaluation.",
        "The evaluation created by an earlier request with the same Idempotency-Key.",
    ),
    summary="Start an evaluation",
)
def submit_evaluation(
    context: Ctx,
    who: Who,
    run_id: RunId,
    response: Response,
    body: Annotated[EvaluationRequest | None, Body(openapi_examples=examples.EVALUATIONS)] = None,
    key: KeyHeader = None,
) -> EvaluationView:
    """Score the base model, the adapter, a checkpoint or the merged model on any dataset.

    The evaluation is a job of its own and never changes the run's state. Rows are scored against
    all labels that the run was trained on; unlabelled rows get predictions too. Answers 409 if the
    requested model does not exist yet.
    """
    evaluation_request = body or _DEFAULTS
    route = f"POST /v1/runs/{run_id}/evaluations"
    request_key = idempotency_key(who, route, key, hash_of(evaluation_request.model_dump()))
    evaluation, is_new = use_cases.submit(
        context, run_id, evaluation_request, request_key, by=who.name
    )
    location = f"/v1/runs/{run_id}/evaluations/{evaluation.id}"
    set_created(response, location, is_new=is_new)
    with context.database.read() as session:
        return view(session, evaluation)


@router.get("", responses=READS, summary="List the evaluations of a run")
def list_evaluations(
    context: Ctx, run_id: RunId, limit: Limit = 20, after: AfterEvaluation = None
) -> Page[EvaluationView]:
    """List the run's own and the requested evaluations in any state, newest first."""
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        rows, more = evaluations.page(session, run_id, limit=limit, after=after)
        views = [view(session, evaluation) for evaluation in rows]
        return page(views, more=more)


@router.get("/{eval_id}", responses=READS, summary="Get an evaluation")
def get_evaluation(context: Ctx, run_id: RunId, eval_id: EvalId) -> EvaluationView:
    """Return the state and the metrics of an evaluation."""
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        return view(session, evaluations.find(session, run_id, eval_id))


@router.head("/{eval_id}/predictions", include_in_schema=False)
@router.get(
    "/{eval_id}/predictions",
    responses={**WRITES, **PREDICTIONS_FILE},
    response_class=Response,
    summary="Download the predictions of an evaluation",
)
def download_predictions(
    context: Ctx, run_id: RunId, eval_id: EvalId, redirect: Redirect = False
) -> Response:
    """Download the prediction for every row as a Parquet file. Answers 409 until it exists."""
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        row = evaluations.predictions(session, run_id, eval_id)
    expected = StoredFile(row.size, row.sha256)
    return file_response(context.store, row.key, expected, redirect=redirect)


@router.get("/{eval_id}/logs", responses=LOG, summary="Read the log of an evaluation")
def get_evaluation_logs(
    context: Ctx, run_id: RunId, eval_id: EvalId, tail: Tail = None
) -> Response:
    """Return the log of a requested evaluation as text; while it runs, a few seconds old."""
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        evaluation = evaluations.find(session, run_id, eval_id)
    if evaluation.task is None:
        raise NotFound(
            "the run made this evaluation itself: its log is the run's, at GET /v1/runs/{id}/logs"
        )
    return log_response(context, run_id, EVALUATE.log_path(evaluation.job.id), tail)


@router.post(
    "/{eval_id}/cancel",
    responses=WRITES,
    dependencies=[Depends(no_body)],
    summary="Cancel an evaluation",
)
def cancel_evaluation(context: Ctx, who: Who, run_id: RunId, eval_id: EvalId) -> EvaluationView:
    """Cancel a requested evaluation: immediately if queued, within seconds if running."""
    evaluation = use_cases.cancel(context, run_id, eval_id, by=who.name)
    with context.database.read() as session:
        return view(session, evaluation)
