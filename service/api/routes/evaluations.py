"""Evaluations: a model's predictions on a split, made by a run or asked for afterwards."""

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
from service.api.responses.files import file_response
from service.api.routes.results import FILE, Redirect, Tail, log_response
from service.api.schemas.base import Page, page
from service.api.schemas.evaluations import EvaluationView
from service.api.schemas.jobs import makes
from service.artifacts import Stored
from service.domain.errors import NotFound
from service.domain.evaluation import EvaluationRequest
from service.domain.job_kinds import EVALUATE
from service.store import evaluations, jobs
from service.store import runs as rows
from service.store.evaluations import Found
from service.usecases import evaluations as use_cases

router = APIRouter(prefix="/v1/runs/{run_id}/evaluations", tags=["results"], route_class=JsonRoute)
_NOTHING_SAID = EvaluationRequest()  # type: ignore[call-arg]  # every field has a default


def view(session: Session, found: Found) -> EvaluationView:
    return EvaluationView.of(found, jobs.queue_position(session, found.job))


@router.post(
    "",
    status_code=201,
    responses=makes(
        EvaluationView,
        "The evaluation",
        "The evaluation that an earlier request with this Idempotency-Key made.",
    ),
)
def submit_evaluation(
    context: Ctx,
    who: Who,
    run_id: str,
    response: Response,
    body: Annotated[EvaluationRequest | None, Body(openapi_examples=examples.EVALUATIONS)] = None,
    key: KeyHeader = None,
) -> EvaluationView:
    """Score the base model, the adapter or a checkpoint on any dataset, as a job of its own.

    Poll it under its id. Its rows are scored against all labels that the run was trained on; rows
    without a label get predictions too. The run itself does not change, whatever comes of it. 409
    while the run has not got what is to be scored.
    """
    asked = body or _NOTHING_SAID
    route = f"POST /v1/runs/{run_id}/evaluations"
    request_key = idempotency_key(who, route, key, hash_of(asked.model_dump()))
    found, made = use_cases.submit(context, run_id, asked, request_key, by=who.name)
    response.headers["Location"] = f"/v1/runs/{run_id}/evaluations/{found.id}"
    if not made:
        response.status_code = 200
    with context.database.read() as session:
        return view(session, found)


@router.get("", responses=READS)
def list_evaluations(
    context: Ctx, run_id: str, limit: Limit = 20, after: After = None
) -> Page[EvaluationView]:
    """Those that the run made itself and those asked for, whatever their state; newest first."""
    with context.database.read() as session:
        rows.get_run(session, run_id)
        found, more = evaluations.page(session, run_id, limit=limit, after=after)
        views = [view(session, one) for one in found]
        return page(views, views[-1].id if views else None, more=more)


@router.get("/{eval_id}", responses=READS)
def get_evaluation(context: Ctx, run_id: str, eval_id: str) -> EvaluationView:
    """Where an evaluation stands; poll this."""
    with context.database.read() as session:
        rows.get_run(session, run_id)
        return view(session, evaluations.find(session, run_id, eval_id))


@router.head("/{eval_id}/predictions", include_in_schema=False)
@router.get("/{eval_id}/predictions", responses={**WRITES, **FILE}, response_class=Response)
def download_predictions(
    context: Ctx, run_id: str, eval_id: str, redirect: Redirect = False
) -> Response:
    """The prediction for every row (Parquet). 409 until they are there."""
    with context.database.read() as session:
        rows.get_run(session, run_id)
        found = evaluations.predictions(session, run_id, eval_id)
    expected = Stored(found.size, found.sha256)
    return file_response(context.store, found.key, expected, redirect=redirect)


@router.get("/{eval_id}/logs", responses={**READS, 200: {"content": {"text/plain": {}}}})
def get_evaluation_logs(context: Ctx, run_id: str, eval_id: str, tail: Tail = None) -> Response:
    """The log of the evaluation's own program; a few seconds behind while it goes on."""
    with context.database.read() as session:
        rows.get_run(session, run_id)
        found = evaluations.find(session, run_id, eval_id)
    if found.task is None:
        raise NotFound(
            "the run made this evaluation itself: its log is the run's, at GET /v1/runs/{id}/logs"
        )
    return log_response(context, run_id, EVALUATE.log_path(found.job.id), tail)


@router.post("/{eval_id}/cancel", responses=WRITES, dependencies=[Depends(no_body)])
def cancel_evaluation(context: Ctx, who: Who, run_id: str, eval_id: str) -> EvaluationView:
    """Cancel one that was asked for: a queued one at once, a running one within seconds."""
    found = use_cases.cancel(context, run_id, eval_id, by=who.name)
    with context.database.read() as session:
        return view(session, found)
