"""Runs: start, poll, follow, steer."""

import csv
import io
import re
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool

from service.api import examples
from service.api.dependencies import (
    After,
    Ctx,
    EventNumber,
    KeyHeader,
    Limit,
    Who,
    get_feed,
    hash_of,
    idempotency_key,
    no_body,
)
from service.api.json_body import JsonRoute
from service.api.problems import READS, WRITES, documented
from service.api.responses import event_stream, negotiation
from service.api.responses.event_feed import Feed
from service.api.schemas.base import Page, page
from service.api.schemas.results import EventList, EventView, MetricPoint, MetricSeries
from service.api.schemas.runs import PlanView, RunChanges, RunRequest, RunView
from service.context import Context
from service.domain.errors import NotAcceptable, QuotaExceeded
from service.domain.states import JobStatus
from service.store import events, jobs, promotions
from service.store import runs as rows
from service.store.tables import Job, Run
from service.usecases import api_keys, retention, run_control
from service.usecases import runs as use_cases

_EVENT_STREAM = re.compile(r"text/event-stream(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
_EVENT_NUMBER = re.compile(r"[0-9]{1,9}")
router = APIRouter(prefix="/v1/runs", tags=["runs"], route_class=JsonRoute)
DryRun = Annotated[bool, Query(description="Check and plan, but start nothing.")]


def views(session: Session, found: Sequence[tuple[Run, Job]]) -> list[RunView]:
    names = promotions.names_of(session, [run.id for run, _ in found])
    return [
        RunView.of(run, job, jobs.queue_position(session, job), names.get(run.id, []))
        for run, job in found
    ]


def view(session: Session, run: Run, job: Job) -> RunView:
    return views(session, [(run, job)])[0]


@router.post(
    "",
    status_code=201,
    responses={
        **WRITES,
        **documented(QuotaExceeded),
        201: {
            "model": RunView,
            "description": "The run, queued.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        200: {
            "model": PlanView | RunView,
            "description": "With dry_run=true: what the run would do. Or the run that an earlier "
            "request with this Idempotency-Key made.",
        },
    },
)
def submit_run(
    context: Ctx,
    who: Who,
    body: Annotated[RunRequest, Body(openapi_examples=examples.RUNS)],
    response: Response,
    key: KeyHeader = None,
    dry_run: DryRun = False,
) -> Any:
    """Start a fine-tuning run.

    Give `dataset_id` and what shall differ from the preset; everything else is inherited.
    """
    if dry_run:
        with context.database.read() as session:
            plan = use_cases.resolve(context, session, body)
        response.status_code = 200
        return PlanView.of(plan)
    request_key = idempotency_key(who, "POST /v1/runs", key, hash_of(body))
    return _made(context, response, use_cases.submit(context, body, request_key, by=who.name))


def _made(context: Context, response: Response, answer: tuple[Run, Job, bool]) -> RunView:
    run, job, made = answer
    response.headers["Location"] = f"/v1/runs/{run.id}"
    if not made:
        response.status_code = 200
    return _shown(context, (run, job))


def _shown(context: Context, found: tuple[Run, Job]) -> RunView:
    with context.database.read() as session:
        return view(session, *found)


@router.get("", responses=READS)
def list_runs(
    context: Ctx,
    limit: Limit = 20,
    after: After = None,
    status: JobStatus | None = None,
    name: Annotated[str | None, Query(description="Runs of exactly this name.")] = None,
    dataset_id: str | None = None,
    tag: str | None = None,
) -> Page[RunView]:
    """The runs, newest first."""
    with context.database.read() as session:
        found, more = rows.list_runs(
            session,
            limit=limit,
            after=after,
            status=status,
            name=name,
            dataset_id=dataset_id,
            tag=tag,
        )
        shown = views(session, found)
    return page(shown, shown[-1].id if shown else None, more=more)


@router.get("/{run_id}", responses=READS)
def get_run(context: Ctx, run_id: str) -> RunView:
    """Where a run stands; poll this."""
    with context.database.read() as session:
        return view(session, *rows.get_run(session, run_id))


@router.delete("/{run_id}", status_code=204, responses=WRITES, dependencies=[Depends(no_body)])
def delete_run(context: Ctx, who: Who, run_id: str) -> None:
    """Delete a run with its checkpoints, files, evaluations and events, for good.

    409 while it or an evaluation of it is running, and while it has a name that runs are served by.
    A queued or paused run is cancelled first. Cut short, call it again.
    """
    retention.delete_run(context.database, context.store, run_id, by=who.name)


@router.post("/{run_id}/cancel", responses=WRITES, dependencies=[Depends(no_body)])
def cancel_run(context: Ctx, who: Who, run_id: str) -> RunView:
    """Cancel. A queued or paused run at once; a running one stops at its next step.

    What was learned so far is kept. A run that is already writing its result finishes.
    """
    return _shown(context, run_control.cancel(context, run_id, by=who.name))


@router.post("/{run_id}/pause", responses=WRITES, dependencies=[Depends(no_body)])
def pause_run(context: Ctx, who: Who, run_id: str) -> RunView:
    """Pause. A queued run at once; a running one writes a checkpoint at its next step and stops.

    Its worker and GPU are then free. A run that is already writing its result finishes.
    """
    return _shown(context, run_control.pause(context, run_id, by=who.name))


@router.post("/{run_id}/resume", responses=WRITES, dependencies=[Depends(no_body)])
def resume_run(context: Ctx, who: Who, run_id: str) -> RunView:
    """Let a paused run go on from its checkpoint, on whichever worker is free."""
    return _shown(context, run_control.resume(context, run_id, by=who.name))


@router.post("/{run_id}/retry", responses=WRITES, dependencies=[Depends(no_body)])
def retry_run(
    context: Ctx,
    who: Who,
    run_id: str,
    from_start: Annotated[
        bool,
        Query(description="Forget what was learned (checkpoints, metrics) and start at step 0."),
    ] = False,
) -> RunView:
    """Run a failed run again, unchanged, from its newest checkpoint."""
    answer = run_control.retry(context, run_id, from_start=from_start, by=who.name)
    return _shown(context, answer)


@router.post(
    "/{run_id}/clone",
    status_code=201,
    responses={
        **WRITES,
        **documented(QuotaExceeded),
        201: {
            "model": RunView,
            "description": "The new run, queued.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        200: {
            "model": PlanView | RunView,
            "description": "With dry_run=true: what the clone would do. Or the run that an earlier "
            "request with this Idempotency-Key made.",
        },
    },
)
def clone_run(
    context: Ctx,
    who: Who,
    run_id: str,
    response: Response,
    body: Annotated[RunChanges | None, Body(openapi_examples=examples.CLONES)] = None,
    key: KeyHeader = None,
    dry_run: DryRun = False,
) -> Any:
    """Start a new run of the same specification, with overrides.

    The body holds only what shall differ; sections are laid over the run's own, as over a preset.
    """
    changes = body or {}
    if dry_run:
        with context.database.read() as session:
            plan = use_cases.plan_clone(context, session, run_id, changes)
        response.status_code = 200
        return PlanView.of(plan)
    request_key = idempotency_key(who, f"POST /v1/runs/{run_id}/clone", key, hash_of(changes))
    answer = use_cases.clone(context, run_id, changes, request_key, by=who.name)
    return _made(context, response, answer)


@router.get(
    "/{run_id}/events",
    responses={
        **READS,
        200: {
            "model": EventList,
            "description": "A list; or, with `Accept: text/event-stream`, a stream that closes "
            "after the final status, or within 15 s of the key's revocation or expiry.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
    },
)
async def get_events(
    request: Request,
    context: Ctx,
    who: Who,
    feed: Annotated[Feed, Depends(get_feed)],
    run_id: str,
    after: EventNumber = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    last_event_id: Annotated[str | None, Header(description="Resumes a stream.")] = None,
) -> Any:
    """What happened, oldest first: as a list, or followed live as server-sent events."""
    if last_event_id is not None and _EVENT_NUMBER.fullmatch(last_event_id):
        after = max(after, int(last_event_id))

    def first_page() -> EventList:
        with context.database.read() as session:
            rows.get_run(session, run_id)
            found = events.page(session, run_id, after, limit + 1)
        views = [EventView.of(event) for event in found[:limit]]
        more = len(found) > limit
        return EventList(data=views, has_more=more, next=views[-1].id if more else None)

    if not _EVENT_STREAM.search(request.headers.get("accept", "")):
        return await run_in_threadpool(first_page)
    await run_in_threadpool(first_page)  # 404 before the stream begins
    is_let_in = partial(api_keys.is_let_in, context.database, who)
    stream = event_stream.run_events(context, feed, run_id, after, is_let_in)

    async def encoded() -> AsyncIterator[bytes]:
        async for event in stream:
            if event is None:
                yield KEEPALIVE_COMMENT
            else:
                data = event.model_dump_json()
                yield format_sse_event(data_str=data, event=event.type, id=str(event.id))

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(encoded(), media_type="text/event-stream", headers=headers)


@router.get(
    "/{run_id}/metrics",
    response_model=MetricSeries,
    responses={
        **READS,
        **documented(NotAcceptable),
        200: {"content": {"text/csv": {"schema": {"type": "string"}}}},
    },
)
def get_metrics(
    request: Request,
    context: Ctx,
    run_id: str,
    name: Annotated[list[str] | None, Query(description="Only these series.")] = None,
    format: Annotated[  # noqa: A002 - the API's name
        str | None, Query(pattern="^(json|csv)$", description="json or csv; or by Accept.")
    ] = None,
) -> Any:
    """The metric series, one value a step and name."""
    with context.database.read() as session:
        rows.get_run(session, run_id)
        found = rows.metrics(session, run_id, name)
    if negotiation.wanted(request, format, ("json", "csv")) == "csv":
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["name", "step", "epoch", "value"])
        writer.writerows((row.name, row.step, row.epoch, repr(row.value)) for row in found)
        return Response(text.getvalue(), media_type="text/csv")
    series: dict[str, list[MetricPoint]] = {}
    for row in found:
        point = MetricPoint(step=row.step, epoch=row.epoch, value=row.value)
        series.setdefault(row.name, []).append(point)
    return JSONResponse(MetricSeries(series=series).model_dump())
