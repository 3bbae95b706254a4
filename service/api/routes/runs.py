"""Runs: start, poll, follow, cancel."""

import csv
import io
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool

from service import runs as use_cases
from service.api import examples, streams
from service.api.dependencies import (
    After,
    EventNumber,
    KeyHeader,
    Limit,
    get_context,
    get_feed,
    hash_of,
    idempotency_key,
)
from service.api.feed import Feed
from service.api.problems import READS, WRITES
from service.api.schemas import (
    EventList,
    EventView,
    MetricPoint,
    MetricSeries,
    Page,
    PlanView,
    RunRequest,
    RunView,
    page,
)
from service.context import Context
from service.domain.states import JobStatus
from service.store import events, jobs
from service.store import runs as rows
from service.store.tables import Job, Run

_EVENT_STREAM = re.compile(r"text/event-stream(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
_EVENT_NUMBER = re.compile(r"[0-9]{1,9}")
router = APIRouter(prefix="/v1/runs", tags=["runs"])
Ctx = Annotated[Context, Depends(get_context)]


def view(session: Session, run: Run, job: Job) -> RunView:
    return RunView.of(run, job, jobs.queue_position(session, job))


@router.post(
    "",
    status_code=201,
    responses={
        **WRITES,
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
    body: Annotated[RunRequest, Body(openapi_examples=examples.RUNS)],
    response: Response,
    key: KeyHeader = None,
    dry_run: Annotated[bool, Query(description="Check and plan, but start nothing.")] = False,
) -> Any:
    """Start a fine-tuning run.

    Give `dataset_id` and what shall differ from the preset; everything else is inherited.
    """
    if dry_run:
        with context.database.read() as session:
            plan = use_cases.resolve(context, session, body)
        response.status_code = 200
        return PlanView.of(plan)
    request_key = idempotency_key("POST /v1/runs", key, hash_of(body))
    run, job, made = use_cases.submit(context, body, request_key)
    response.headers["Location"] = f"/v1/runs/{run.id}"
    if not made:
        response.status_code = 200
    with context.database.read() as session:
        return view(session, run, job)


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
        views = [view(session, run, job) for run, job in found]
    return page(views, views[-1].id if views else None, more=more)


@router.get("/{run_id}", responses=READS)
def get_run(context: Ctx, run_id: str) -> RunView:
    """Where a run stands; poll this."""
    with context.database.read() as session:
        return view(session, *rows.get_run(session, run_id))


@router.post("/{run_id}/cancel", responses=WRITES)
def cancel_run(context: Ctx, run_id: str) -> RunView:
    """Cancel. A queued run at once; a running one stops at its next step and keeps its files.

    A run that is already writing its result finishes.
    """
    run, job = use_cases.cancel(context, run_id)
    with context.database.read() as session:
        return view(session, run, job)


@router.get(
    "/{run_id}/events",
    responses={
        **READS,
        200: {
            "model": EventList,
            "description": "A list; or, with `Accept: text/event-stream`, a stream that closes "
            "after the final status.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
    },
)
async def get_events(
    request: Request,
    context: Ctx,
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
    stream = streams.run_events(context, feed, run_id, after)

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
    responses={**READS, 200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
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
    if format == "csv" or (format is None and "text/csv" in request.headers.get("accept", "")):
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
