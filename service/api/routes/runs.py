"""Runs: start, plan, list, clone, delete."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Response
from sqlmodel import Session

from service.api import examples
from service.api.dependencies import (
    AfterRun,
    Ctx,
    DryRun,
    KeyHeader,
    Limit,
    RunId,
    Who,
    hash_of,
    idempotency_key,
    no_body,
)
from service.api.json_body import JsonRoute
from service.api.openapi import LOCATION, READS, WRITES, Responses, documented
from service.api.responses.created import set_created
from service.api.schemas.base import Page, page
from service.api.schemas.run_requests import RunChanges, RunRequest
from service.api.schemas.runs import PlanView, RunView
from service.api.schemas.summaries import (
    ListView,
    RunSummary,
    summary_content,
    summary_response,
)
from service.context import Context
from service.domain.errors import QuotaExceeded
from service.domain.states import JobStatus
from service.store import jobs, promotions
from service.store import runs as run_rows
from service.store.tables import Job, Run
from service.usecases import retention, run_plan
from service.usecases import runs as use_cases

router = APIRouter(prefix="/v1/runs", tags=["runs"], route_class=JsonRoute)


def views(session: Session, runs_and_jobs: Sequence[tuple[Run, Job]]) -> list[RunView]:
    names = promotions.names_of(session, [run.id for run, _ in runs_and_jobs])
    positions = jobs.queue_positions(session, [job for _, job in runs_and_jobs])
    return [
        RunView.of(run, job, positions.get(job.id), names.get(run.id, []))
        for run, job in runs_and_jobs
    ]


def current_view(context: Context, run_and_job: tuple[Run, Job]) -> RunView:
    with context.database.read() as session:
        return views(session, [run_and_job])[0]


def _starts_run(subject: str) -> Responses:
    """Return the `responses` of a route that starts or plans `subject`."""
    return {
        **WRITES,
        **documented(QuotaExceeded),
        201: {"model": RunView, "description": f"The queued {subject}.", "headers": LOCATION},
        200: {
            "model": PlanView | RunView,
            "description": f"With dry_run=true: the plan of the {subject}. Otherwise: the run "
            "created by an earlier request with the same Idempotency-Key.",
        },
    }


@router.post("", status_code=201, responses=_starts_run("run"), summary="Start a run")
def submit_run(
    context: Ctx,
    who: Who,
    body: Annotated[RunRequest, Body(openapi_examples=examples.RUNS)],
    response: Response,
    key: KeyHeader = None,
    dry_run: DryRun = False,
) -> Any:
    """Start a fine-tuning run, or plan one with `dry_run`.

    Set `dataset_id` and the fields that differ from the preset; all others take its values.
    """
    if dry_run:
        with context.database.read() as session:
            plan = run_plan.plan(context, session, body)
        response.status_code = 200
        return PlanView.of(plan)
    request_key = idempotency_key(who, "POST /v1/runs", key, hash_of(body))
    run, job, is_new = use_cases.submit(context, body, request_key, by=who.name)
    return _submitted(context, response, run, job, is_new=is_new)


def _submitted(
    context: Context, response: Response, run: Run, job: Job, *, is_new: bool
) -> RunView:
    set_created(response, f"/v1/runs/{run.id}", is_new=is_new)
    return current_view(context, (run, job))


@router.get(
    "",
    response_model=Page[RunView],
    responses={**READS, 200: summary_content(RunSummary)},
    summary="List runs",
)
def list_runs(
    context: Ctx,
    limit: Limit = 20,
    after: AfterRun = None,
    status: Annotated[
        JobStatus | None, Query(description="Return only runs in this state.")
    ] = None,
    name: Annotated[
        str | None, Query(description="Return only runs with exactly this name.")
    ] = None,
    dataset_id: Annotated[
        str | None, Query(description="Return only runs on this dataset.")
    ] = None,
    tag: Annotated[str | None, Query(description="Return only runs with this tag.")] = None,
    view: ListView = "full",
) -> Any:
    """List runs, newest first, with their whole specifications or in short (`view=summary`)."""
    with context.database.read() as session:
        runs_and_jobs, more = run_rows.list_runs(
            session,
            limit=limit,
            after=after,
            status=status,
            name=name,
            dataset_id=dataset_id,
            tag=tag,
        )
        items = views(session, runs_and_jobs)
    whole = page(items, more=more)
    if view == "summary":
        return summary_response([RunSummary.of(item) for item in items], whole)
    return whole


@router.get("/{run_id}", responses=READS, summary="Get a run")
def get_run(context: Ctx, run_id: RunId) -> RunView:
    """Return the state and progress of a run. Poll it, or follow GET …/events."""
    with context.database.read() as session:
        return views(session, [run_rows.get_run(session, run_id)])[0]


@router.delete(
    "/{run_id}",
    status_code=204,
    responses=WRITES,
    dependencies=[Depends(no_body)],
    summary="Delete a run",
)
def delete_run(context: Ctx, who: Who, run_id: RunId) -> None:
    """Delete a run with its checkpoints, files, evaluations and events permanently.

    A queued or paused run is cancelled first. Answers 409 while the run or one of its evaluations
    is running, and while the run has a release name. If the request is interrupted, repeat it; 404
    then means that the deletion is complete.
    """
    retention.delete_run(context.database, context.store, run_id, by=who.name)


@router.post(
    "/{run_id}/clone", status_code=201, responses=_starts_run("clone"), summary="Clone a run"
)
def clone_run(
    context: Ctx,
    who: Who,
    run_id: RunId,
    response: Response,
    body: Annotated[RunChanges | None, Body(openapi_examples=examples.CLONES)] = None,
    key: KeyHeader = None,
    dry_run: DryRun = False,
) -> Any:
    """Start a new run with the specification of this one and the body's changes.

    Sections of the body are merged into the run's own, as into a preset.
    """
    changes = body or {}
    if dry_run:
        with context.database.read() as session:
            plan = run_plan.plan_clone(context, session, run_id, changes)
        response.status_code = 200
        return PlanView.of(plan)
    request_key = idempotency_key(who, f"POST /v1/runs/{run_id}/clone", key, hash_of(changes))
    run, job, is_new = use_cases.clone(context, run_id, changes, request_key, by=who.name)
    return _submitted(context, response, run, job, is_new=is_new)
